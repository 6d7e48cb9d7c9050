"""What a prediction.json must hold: every form the command writes passes, and the first thing wrong is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dima.run.prediction_schema import read, validate
from dima.run.record_place import RecordError
from tests.support.prediction_record import prediction_record

FORMS: dict[str, dict[str, Any]] = {
    "all": {},
    "no state": {"with_state": False},
    "one sample": {"samples": 1},
    "one step": {"horizon": 1},
    "no gains": {"with_gains": False},
    "no orders": {"orders": ["any"]},
    "long, many agents": {"horizon": 50, "num_agents": 64},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_what_is_written_can_be_read(form: dict[str, Any], tmp_path: Path) -> None:
    record = prediction_record(**form)
    file = tmp_path / "prediction.json"
    file.write_text(json.dumps(record))
    assert read(file) == record


def _parent(record: Any, place: list[str | int]) -> Any:
    for key in place[:-1]:
        record = record[key]
    return record


def _paths(node: Any, place: tuple[str | int, ...] = ()) -> list[list[str | int]]:
    """Where every key of nested objects is; of a list, only the first element is looked into."""
    if isinstance(node, list):
        return _paths(node[0], (*place, 0)) if node else []
    if not isinstance(node, dict):
        return []
    return [path for key, value in node.items() for path in ([*place, key], *_paths(value, (*place, key)))]


FREE = ("versions", "options", "orders", "differences", "fan.orders")
"""Objects whose keys are the writer's."""


def test_every_key_is_needed() -> None:
    record = prediction_record(orders=["cycle", "random"], horizon=2, samples=2)
    dotted = {".".join(map(str, path)).replace(".0.", "[0]."): path for path in _paths(record)}
    needed = {name: path for name, path in dotted.items() if name.rpartition(".")[0] not in FREE}
    assert len(needed) > 200
    for name, path in needed.items():
        parent = _parent(record, path)
        value = parent.pop(path[-1])
        with pytest.raises(RecordError, match=rf"^{re.escape(name)} is missing$"):
            validate(record)
        parent[path[-1]] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["schema"], 2, r"schema is 2: this version reads 1"),
        (["env"], None, r"env is None: expected text"),
        (["horizon"], 20.0, r"horizon is 20.0: expected a whole number"),
        (["horizon"], True, r"horizon is True: expected a whole number"),
        (["samples"], 0, r"samples is 0: expected at least 1"),
        (["marks"], [1, 5, 15, 40], r"marks is \[1, 5, 15, 40\]: expected rising steps.* 20"),
        (["marks"], [], r"marks is \[\]: expected rising steps"),
        (["orders"], {}, r"orders is \{\}: expected at least one order"),
        (["data", "which"], "training", r"data.which is 'training': expected held_out"),
        (["orders", "cycle", "obs"], None, r"orders.cycle.obs is None: expected an object with keys"),
        (["orders", "cycle", "obs", "e"], [0.1] * 19, r"orders.cycle.obs.e has 19 elements: expected 20"),
        (["orders", "cycle", "obs", "e", 3], float("nan"), r"orders.cycle.obs.e\[3\] is nan: expected a finite number"),
        (["orders", "cycle", "obs", "e", 3], None, r"orders.cycle.obs.e\[3\] is None: expected a finite number"),
        (["orders", "cycle", "obs", "ci95", "5"], [2.0, 1.0], r"obs.ci95.5 is .*expected the lower end first"),
        (["orders", "cycle", "obs", "e_ci95", 0], [2.0], r"obs.e_ci95\[0\] has 1 elements: expected 2"),
        (["orders", "cycle", "action_gain_r2"], [1.0] * 3, r"action_gain_r2 has 3 elements: expected 2"),
        (
            ["orders", "cycle", "spread", "state", "ranks", "5", "histogram"],
            [10] * 10,
            r"orders.cycle.spread.state.ranks.5.histogram has 10 elements: expected 11",
        ),
        (["fan", "truth"], [[0.0] * 21] * 3, r"fan.truth has 3 elements: expected 4"),
        (["fan", "orders", "cycle", 0, 2], [0.0] * 20, r"fan.orders.cycle\[0\]\[2\] has 20 elements: expected 21"),
        (["no_action"], "zero", r"no_action is 'zero': expected hidden or mean"),
        (["baselines_obs", "linear"], "x" * 90, r"baselines_obs.linear is 'x{36}\.\.\.: expected an object"),
    ],
)
def test_the_first_thing_wrong_is_named(place: list[str | int], value: Any, message: str) -> None:
    record = prediction_record()
    _parent(record, place)[place[-1]] = value
    with pytest.raises(RecordError, match=message) as caught:
        validate(record)
    assert "\n" not in str(caught.value)


def test_agents_are_the_same_in_all_orders() -> None:
    record = prediction_record(num_agents=3)
    for name in ("action_gain", "action_gain_ci95", "action_gain_r2"):
        record["orders"]["random"][name].pop()
    with pytest.raises(RecordError, match=r"orders\.random\.action_gain has 2 elements: expected 3"):
        validate(record)


def test_gains_say_how_they_were_measured() -> None:
    record = prediction_record()
    record["action_gain"]["perturbation_std"] = None
    with pytest.raises(RecordError, match=r"action_gain\.perturbation_std is None"):
        validate(record)


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "prediction.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text))
    record = prediction_record(orders=["any"])
    keys = {str(path[-1]) for path in _paths(record) if ".".join(map(str, path[:-1])) not in FREE}
    assert {key for key in keys if not key.isdigit()} - documented == set()


def test_more_keys_are_no_mistake() -> None:
    validate(prediction_record() | {"comment": "by hand"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1', r"prediction\.json cannot be used: .*delimiter"),
        ("[1]", r"prediction\.json cannot be used: the record is \[1\]: expected an object with keys"),
        ("{}", r"prediction\.json cannot be used: schema is missing"),
        (None, r"no prediction at '.*prediction\.json'"),
    ],
)
def test_a_damaged_file_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "prediction.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RecordError, match=message):
        read(file)
