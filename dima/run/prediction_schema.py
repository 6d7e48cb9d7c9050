"""The file `prediction.json`, version 1: whether a record has every key, of the right type, length and range of keys.

`docs/prediction.md` says what each key means. Further keys are no mistake; a number that is not finite is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dima.run.record_place import Place, RecordError, read_record

SCHEMA = 1
"""The version that is written and read."""

BASELINES = ("persistence", "no_action", "linear")


def read(path: Path) -> dict[str, Any]:
    """The content of the prediction.json at `path`, checked.

    Raises:
        RecordError: when it is missing, no JSON, of another version or damaged; names the file.
    """
    return read_record(path, validate, missing="no prediction", command="predict")


def validate(record: Any) -> None:
    """Check that `record` keeps version 1 of the schema.

    Raises:
        RecordError: naming the first key that is missing, of the wrong type or of the wrong length.
    """
    root = Place("", record)
    schema = root["schema"].integer()
    if schema != SCHEMA:
        raise RecordError(f"schema is {schema}: this version reads {SCHEMA}; predict again to get it")
    for name in ("run", "env", "model"):
        root[name].text()
    for name in ("checkpoint", "seed", "complete_segments"):
        root[name].integer(at_least=0)
    root["versions"].each(Place.text)
    root["options"].mapping()
    _check_data(root["data"])
    sizes = _read_sizes(root)
    _check_units(root["units"])
    num_agents = _check_orders(root["orders"], sizes)
    _check_differences(root["differences"], sizes)
    root["floor"]["obs"].optional(lambda place: _check_curve(place, sizes))
    for name in ("baselines", "baselines_obs", "baselines_reward"):
        for baseline in BASELINES:
            _check_field(
                name.removeprefix("baselines_"), root[name][baseline], lambda place: _check_curve(place, sizes)
            )
    root["no_action"].one_of("hidden", "mean")
    _check_action_gain(root["action_gain"], measured=num_agents is not None)
    root["fan"].optional(lambda place: _check_fan(place, sizes))
    root["runtime"]["predict_s"].number()
    root["runtime"]["imagined_steps"].integer(at_least=0)


@dataclass(frozen=True)
class _Sizes:
    """Lengths that the parts of a record share."""

    horizon: int
    samples: int
    marks: tuple[str, ...]


def _read_sizes(root: Place) -> _Sizes:
    horizon, samples = root["horizon"].integer(at_least=1), root["samples"].integer(at_least=1)
    root["segments"].integer(at_least=1)
    marks = [place.integer(at_least=1) for place in root["marks"].items()]
    if not marks or marks != sorted(set(marks)) or marks[-1] > horizon:
        raise root["marks"].fail(f"rising steps, the last one at most the horizon of {horizon}")
    return _Sizes(horizon, samples, tuple(map(str, marks)))


def _check_data(data: Place) -> None:
    data["path"].text()
    data["fingerprint"].text()
    data["episodes"].integer(at_least=1)
    data["steps"].integer(at_least=1)
    data["which"].one_of("held_out")


def _check_units(units: Place) -> None:
    units["normalized"].text()
    units["raw"].text()
    for field in ("state", "obs"):
        units[field].optional(lambda place: (place["std"].numbers(), place["constant"].integers()))
    units["reward"]["std"].number()


def _check_orders(orders: Place, sizes: _Sizes) -> int | None:
    """Check every order; the number of agents whose gains were measured, None if no order's were."""
    if not orders.mapping():
        raise orders.fail("at least one order")
    num_agents: int | None = None
    for name in orders.mapping():
        order = orders[name]
        for field in ("state", "obs", "reward"):
            _check_field(field, order[field], lambda place: _check_curve(place, sizes))
        _check_termination(order["termination"])
        order["spread"].optional(lambda place: _check_spreads(place, sizes))
        if order["action_gain"].value is not None:
            order["action_gain"].numbers(num_agents)
            num_agents = len(order["action_gain"].items())
            order["action_gain_ci95"].intervals(num_agents)
            order["action_gain_r2"].numbers(num_agents)
    return num_agents


def _check_field(field: str, place: Place, check: Callable[[Place], object]) -> None:
    """Not every model predicts a state, and a reward that never varies has no unit; everybody observes something."""
    if field in ("state", "reward"):
        place.optional(check)
    else:
        check(place)


def _check_curve(curve: Place, sizes: _Sizes) -> None:
    curve["e"].numbers(sizes.horizon)
    curve["e_ci95"].intervals(sizes.horizon)
    curve["e_std"].numbers(sizes.horizon)
    curve["cumulative"].marked(sizes.marks, Place.number)
    curve["cumulative_std"].marked(sizes.marks, Place.number)
    curve["ci95"].marked(sizes.marks, Place.interval)
    curve["raw"]["e"].numbers(sizes.horizon)
    curve["raw"]["cumulative"].marked(sizes.marks, Place.number)


def _check_termination(termination: Place) -> None:
    termination["auc"].optional(Place.number)
    for name in ("brier", "ece", "base_rate", "mean_predicted"):
        termination[name].number()
    for name in ("positives", "steps"):
        termination[name].integer(at_least=0)
    for bin_ in termination["bins"].items(length=10):
        bin_["count"].integer(at_least=0)
        for name in ("predicted", "observed"):
            bin_[name].optional(Place.number)


def _check_spreads(spreads: Place, sizes: _Sizes) -> None:
    for field in ("state", "obs"):
        spreads[field].optional(lambda place: _check_spread(place, sizes))


def _check_spread(spread: Place, sizes: _Sizes) -> None:
    spread["crps"].marked(sizes.marks, Place.number)
    spread["crps_ci95"].marked(sizes.marks, Place.interval)
    spread["energy_score"].marked(sizes.marks, Place.number)
    spread["spread_skill"].marked(sizes.marks, lambda place: place.optional(Place.number))
    for mark in sizes.marks:
        ranks = spread["ranks"][mark]
        ranks["histogram"].integers(sizes.samples + 1)
        ranks["p_value"].number()


def _check_differences(differences: Place, sizes: _Sizes) -> None:
    def check(pair: Place) -> None:
        for field in ("state", "obs", "reward"):
            _check_field(field, pair[field], check_marks)

    def check_marks(place: Place) -> None:
        place.marked(sizes.marks, lambda place: (place["mean"].number(), place["ci95"].interval()))

    differences.each(check)


def _check_action_gain(how: Place, measured: bool) -> None:
    how["note"].optional(Place.text)
    for name in ("perturbation_std", "states", "samples"):
        if measured:
            how[name].number()
        else:
            how[name].optional(Place.number)


def _check_fan(fan: Place, sizes: _Sizes) -> None:
    fan["unit"].text()
    for name in ("episode", "start"):
        fan["segment"][name].integer(at_least=0)
    fan["dims"].integers()
    num_dims = len(fan["dims"].value)
    for truth in fan["truth"].items(num_dims):
        truth.numbers(sizes.horizon + 1)

    def check_samples(dims: Place) -> None:
        for samples in dims.items(num_dims):
            for sample in samples.items():
                sample.numbers(sizes.horizon + 1)

    fan["orders"].each(check_samples)
