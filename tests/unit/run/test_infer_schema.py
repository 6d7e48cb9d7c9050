"""The schema of inference.json: whole records pass, and every kind of damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dima.run.infer_schema import read, validate
from dima.run.record_place import RecordError
from tests.support.inference_record import inference_record

Record = dict[str, Any]

DAMAGE: dict[str, tuple[Callable[[Record], object], str]] = {
    "another version": (lambda r: r.update(schema=2), "schema is 2: this version reads 1"),
    "a key gone": (lambda r: r.pop("differences"), "differences is missing"),
    "no run": (lambda r: r.update(runs={}), "runs is {}: expected at least one run"),
    "not a number": (
        lambda r: r["runs"]["mlp"]["scores"]["energy_score"].update(value=float("nan")),
        "runs.mlp.scores.energy_score.value is nan",
    ),
    "an interval turned round": (
        lambda r: r["runs"]["mlp"]["scores"]["error_mean"].update(ci95=[2.0, 1.0]),
        r"runs.mlp.scores.error_mean.ci95 is \[2.0, 1.0\]: expected the lower end first",
    ),
    "a dimension missing": (
        lambda r: r["runs"]["mlp"]["scores"]["coverage"]["50"]["by_dimension"]["value"].pop(),
        "by_dimension.value has 2 elements: expected 3",
    ),
    "a rank missing": (
        lambda r: r["baselines"]["mean"]["scores"]["ranks"]["histogram"].pop(),
        "histogram has 8 elements: expected 9",
    ),
    "an agent missing": (lambda r: r["runs"]["mlp"]["by_agent"].pop(), "runs.mlp.by_agent has 1 elements: expected 2"),
    "scores missing without a word": (
        lambda r: r["runs"]["mlp"].update(scores=None),
        "runs.mlp.note is None: expected a note where",
    ),
    "half a latent": (lambda r: r["runs"]["globediff"]["latent"].pop("gap"), "latent.gap is missing"),
    "no clock": (lambda r: r["runs"]["joint"]["latency"]["one"].pop("cpu_ms"), "latency.one.cpu_ms is missing"),
    "neither own nor joint": (lambda r: r["runs"]["mlp"].update(auxiliary="all"), "expected own or joint"),
    "a point missing": (
        lambda r: r["embedding"]["runs"]["mlp"][1].pop(),
        r"embedding.runs.mlp\[1\] has 11 elements: expected 12",
    ),
    "a band missing": (lambda r: r["fan"]["runs"]["mlp"].pop(), "fan.runs.mlp has 2 elements: expected 3"),
    "a nameless processor": (lambda r: r["hardware"].pop("cpu"), "hardware.cpu is missing"),
}


def test_a_whole_record_passes_and_what_may_be_null_may(tmp_path: Path) -> None:
    record = inference_record()
    validate(record)
    record.update(law=None, embedding=None, fan=None, differences={})
    for run in record["runs"].values():
        run.update(latency=None, modes=None, latent=None)
    file = tmp_path / "inference.json"
    file.write_text(json.dumps(record))
    assert read(file) == record


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str) -> None:
    record = inference_record()
    spoil, message = DAMAGE[damage]
    spoil(record)
    with pytest.raises(RecordError, match=message):
        validate(record)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no measurement at .*: dima infer writes one"):
        read(tmp_path / "inference.json")
    (tmp_path / "inference.json").write_text("{")
    with pytest.raises(RecordError, match="inference.json cannot be used"):
        read(tmp_path / "inference.json")
