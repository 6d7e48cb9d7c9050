"""One fixed look a run in every figure of a record, and the line above the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dima.run.figure_style import Look, model_looks

BASELINE_COLOR = "0.45"


def run_looks(record: Mapping[str, Any]) -> dict[str, Look]:
    """By label; the oracle is black."""
    learned = [label for label, run in record["runs"].items() if run["kind"] != "oracle"]
    looks = model_looks(learned)
    return {label: looks.get(label, Look("0.15", "x")) for label in record["runs"]}


def drawing(record: Mapping[str, Any]) -> list[str]:
    """Labels of the runs that draw states: an oracle's are the truth itself, their ranks a toss of coins."""
    return [label for label, run in record["runs"].items() if run["scores"] is not None and run["kind"] != "oracle"]


def describe(record: Mapping[str, Any]) -> str:
    """Task and data, for the line above a figure."""
    episodes = record["data"]["episodes"]
    return f"{record['env']}, {record['states']} moments of {episodes} held-out episode{'s' if episodes > 1 else ''}"
