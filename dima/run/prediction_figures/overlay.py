"""Several models in one figure: their errors per step, and the gains of their actions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from dima.run.prediction_figures.curves import (
    ROW_HEIGHT,
    Series,
    baseline_series,
    draw_errors,
    draw_table,
    floor_series,
    table_rows,
)
from dima.run.prediction_figures.gains import bars_height, draw_gain_bars, lies_down
from dima.run.prediction_figures.style import BASELINES_OF, FIELD_NAMES, RC, WIDTH, Look, head, model_looks, save

_MODEL_FREE = ("persistence", "linear")
"""The baselines that do not depend on the model; `no_action` is another one for each model and left out."""


def plot_overlay(predictions: Mapping[str, dict[str, Any]], path: Path) -> Figure:
    """State errors (observations, where a model has no state), E at the last two marks, and gains of several models.

    Each model shows the order of its own configuration, or the one with the smallest error where that was not
    predicted. Baselines and floor are the first model's.

    Raises:
        ValueError: when the predictions are of different tasks or data, whose units do not compare.
    """
    _require_comparable(predictions)
    entries = {f"{label} ({own_order(each)})": _own_entry(each) for label, each in predictions.items()}
    looks = model_looks(list(entries))
    first = next(iter(predictions.values()))
    fields = [field for field in ("state", "obs") if all(entry[field] for entry in entries.values())]
    columns = {FIELD_NAMES[field]: _series(entries, looks, first, field) for field in fields}
    panel_name, panel_series = next(iter(columns.items()))
    gains = {label: entry for label, entry in entries.items() if entry["action_gain"] is not None}
    marks = sorted(set.intersection(*(set(each["marks"]) for each in predictions.values())))
    lying = lies_down(gains)
    labels = {one.label for series in columns.values() for one in series}
    heights = [max(2.4, bars_height(gains) if lying else 0.0), ROW_HEIGHT * table_rows(labels)]
    with rc_context(RC):
        figure = Figure(figsize=(WIDTH, sum(heights) + 1.1), layout="constrained")
        grid = figure.add_gridspec(2, 2 if gains else 1, height_ratios=heights)
        axes = figure.add_subplot(grid[0, 0])
        draw_errors(axes, panel_series, marks, panel_name)
        if gains:
            draw_gain_bars(figure.add_subplot(grid[0, 1]), gains, looks, lying=lying)
        note = "Bands, brackets and lines on bars: 95 % bootstrap intervals."
        draw_table(figure.add_subplot(grid[1, :]), columns, marks, note)
        head(figure, first["env"], [axes])
        save(figure, path)
    return figure


def own_order(prediction: dict[str, Any]) -> str:
    """The order of the model's configuration, or the best one at the last mark where that was not predicted."""
    orders, chosen = prediction["orders"], prediction["options"].get("order")
    if chosen in orders:
        return chosen
    field, mark = "state" if all(order["state"] for order in orders.values()) else "obs", str(prediction["marks"][-1])
    return min(orders, key=lambda name: orders[name][field]["cumulative"][mark])


def _series(
    entries: Mapping[str, dict[str, Any]], looks: Mapping[str, Look], first: dict[str, Any], field: str
) -> list[Series]:
    models = [Series(label, entry[field], looks[label]) for label, entry in entries.items()]
    baselines = baseline_series(first[BASELINES_OF[field]], _MODEL_FREE)
    return models + baselines + (floor_series(first["floor"]["obs"]) if field == "obs" else [])


def _own_entry(prediction: dict[str, Any]) -> dict[str, Any]:
    return prediction["orders"][own_order(prediction)]


def _require_comparable(predictions: Mapping[str, dict[str, Any]]) -> None:
    if not predictions:
        raise ValueError("no predictions to overlay: name at least one")
    for what, values in {
        "tasks": {each["env"] for each in predictions.values()},
        "data": {each["data"]["fingerprint"] for each in predictions.values()},
    }.items():
        if len(values) > 1:
            raise ValueError(f"predictions of different {what} do not compare: {', '.join(sorted(values))}")
