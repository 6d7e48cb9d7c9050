"""`dima train profile=true` leaves a trace and a summary, and changes nothing that is learned."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.commands import SMALL, Outcome, dima, final_tensors, rows

STAGES = {"collect", "dynamics", "decoder", "imagination", "policy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def outcome(folder: Path) -> Outcome:
    assert dima("train", *SMALL, "out=plain", cwd=folder).code == 0
    return dima("train", *SMALL, "out=profiled", "profile=true", cwd=folder)


def spans(events: list[dict[str, Any]], stage: str) -> list[tuple[float, float]]:
    found = [event for event in events if event.get("cat") == "stage" and event["name"] == stage]
    return [(event["ts"], event["ts"] + event["dur"]) for event in found]


def test_the_trace_holds_every_step_and_the_operations_of_the_first(outcome: Outcome, folder: Path) -> None:
    assert outcome.code == 0, outcome.stderr
    assert "profiled/profile/summary.txt" in outcome.stdout
    assert outcome.stderr == ""
    with gzip.open(folder / "profiled/profile/trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert {event["name"] for event in events if event.get("cat") == "stage"} >= STAGES
    assert len(spans(events, "dynamics")) == 3, "one an update"
    products = [event["ts"] for event in events if event["name"] == "aten::addmm"]
    first, second, third = spans(events, "dynamics")
    for begin, end in (first, second):
        assert any(begin <= ts <= end for ts in products)
    assert not any(third[0] <= ts <= third[1] for ts in products), "two are enough"


def test_the_summary_names_stages_and_operations(outcome: Outcome, folder: Path) -> None:
    text = (folder / "profiled/profile/summary.txt").read_text()
    for stage in STAGES:
        assert f"{stage}, step " in text
    assert "aten::addmm" in text


def test_nothing_that_is_learned_changes(outcome: Outcome, folder: Path) -> None:
    assert rows(folder / "profiled") == rows(folder / "plain")
    plain, profiled = final_tensors(folder / "plain"), final_tensors(folder / "profiled")
    for component, tensors in plain.items():
        assert all(torch.equal(tensor, profiled[component][name]) for name, tensor in tensors.items())
    assert not (folder / "plain/profile").exists()


def test_a_resumed_run_may_be_profiled(outcome: Outcome, folder: Path) -> None:
    resumed = dima("train", "resume=plain", "env_steps=150", "profile=true", cwd=folder)
    assert resumed.code == 0, resumed.stderr
    assert (folder / "plain/profile/trace.json.gz").exists()


def test_a_run_whose_policy_never_learns_says_that_nothing_was_recorded(folder: Path) -> None:
    short = dima("train", *SMALL, "out=short", "env_steps=15", "profile=true", cwd=folder)
    assert short.code == 0, short.stderr
    assert "profile=true recorded nothing" in short.stderr
    assert not (folder / "short/profile").exists()
