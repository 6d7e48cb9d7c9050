"""What a study measures: datasets, groups of cells, and the runs whose policies act in the datasets, read from YAML.

A cell is one fitted model and one measurement of it. Cells keep the plan's order: groups, then seeds, then datasets.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_PLAN_KEYS = {"sources", "datasets", "fit", "predict", "groups", "fans"}
_DATASET_KEYS = {"collect", "source", "min_steps"}
_GROUP_KEYS = {"datasets", "seeds", "fit", "matrix", "predict", "predict_matrix"}

_NO_WORD = re.compile(r"[^\w.+]+")


class PlanError(ValueError):
    """A plan that cannot be carried out; says where and why."""


@dataclass(frozen=True)
class DatasetPlan:
    """How one dataset comes about."""

    name: str
    collect: Mapping[str, Any]
    """What `dima collect` is told, besides where."""
    source: str | None
    """The run whose checkpoints act in a mixture, by its name in the plan."""
    min_steps: int
    """Fewer than these are a failure: how many steps episodes that end early will have is not known before."""


@dataclass(frozen=True)
class Cell:
    """One fit and one measurement of it; several cells may measure the same fit."""

    name: str
    group: str
    dataset: str
    seed: int
    fit: Mapping[str, Any]
    """What `dima fit` is told, besides data, seed and place."""
    predict: Mapping[str, Any]
    """What `dima predict` is told, besides run, data and place."""

    @property
    def fit_name(self) -> str:
        """The run folder: the same for cells that measure the same fit, another one once the plan's settings change."""
        return f"{self.dataset}_seed-{self.seed}_{_digest([self.dataset, self.seed, self.fit])}"

    @property
    def settings(self) -> dict[str, Any]:
        """What a result must have been measured with to stand for this cell."""
        names = ("group", "dataset", "seed", "fit", "predict")
        return json.loads(json.dumps({name: getattr(self, name) for name in names}))


@dataclass(frozen=True)
class Plan:
    """A whole study."""

    sources: Mapping[str, Mapping[str, Any]]
    """What `dima train` is told for each run that takes part in datasets."""
    datasets: Mapping[str, DatasetPlan]
    cells: tuple[Cell, ...]
    fans: frozenset[str]
    """Cells whose imagined trajectories are kept in the results."""


def read_plan(path: Path) -> Plan:
    """The plan at `path`.

    Raises:
        PlanError: when it is missing, no YAML, has unknown keys, or names what it does not define.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise PlanError(f"{path} cannot be read: {error}") from error
    _check_keys(content, _PLAN_KEYS, {"datasets", "groups"}, str(path))
    datasets = {name: _dataset(name, each) for name, each in content["datasets"].items()}
    cells = tuple(
        itertools.chain.from_iterable(_cells(content, name, group) for name, group in content["groups"].items())
    )
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(f"{path}: two cells would be called {twice[0]!r}")
    unknown = sorted({cell.dataset for cell in cells} - set(datasets))
    if unknown:
        raise PlanError(f"{path}: there is no dataset {unknown[0]!r}, only {', '.join(datasets)}")
    fans = frozenset(content.get("fans", ()))
    if not fans <= set(names):
        raise PlanError(f"{path}: fans: there is no cell {min(fans - set(names))!r}")
    return Plan(content.get("sources", {}), datasets, cells, fans)


def words(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments as `key=value` words of a `dima` command."""
    return [f"{name}={_spell(value)}" for name, value in arguments.items()]


def _dataset(name: str, content: Any) -> DatasetPlan:
    _check_keys(content, _DATASET_KEYS, {"collect"}, f"datasets.{name}")
    return DatasetPlan(name, content["collect"], content.get("source"), content.get("min_steps", 1))


def _cells(plan: Mapping[str, Any], name: str, group: Any) -> list[Cell]:
    """The cells of one group: for every seed, every dataset, every choice of the two matrices."""
    _check_keys(group, _GROUP_KEYS, {"datasets"}, f"groups.{name}")
    fits, predicts = _choices(group.get("matrix", {})), _choices(group.get("predict_matrix", {}))
    cells: list[Cell] = []
    for seed, dataset in itertools.product(group.get("seeds", [0]), group["datasets"]):
        for fit, predict in itertools.product(fits, predicts):
            parts = [name, dataset, *_label(fit), *_label(predict), f"seed-{seed}"]
            cells.append(
                Cell(
                    name="_".join(parts),
                    group=name,
                    dataset=dataset,
                    seed=seed,
                    fit={**plan.get("fit", {}), **group.get("fit", {}), **fit},
                    predict={**plan.get("predict", {}), **group.get("predict", {}), **predict},
                )
            )
    return cells


def _choices(matrix: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of a matrix's values; one empty choice for an empty matrix."""
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]


def _label(choice: Mapping[str, Any]) -> list[str]:
    """Parts of a cell's name, fit for a file's."""
    return [f"{key.rpartition('.')[2]}-{_NO_WORD.sub('-', str(value))}" for key, value in choice.items()]


def _check_keys(content: Any, known: set[str], needed: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise PlanError(f"{where}: expected keys {', '.join(sorted(known))}")
    if unknown := sorted(set(content) - known):
        raise PlanError(f"{where}: unknown key {unknown[0]!r}, expected {', '.join(sorted(known))}")
    if missing := sorted(needed - set(content)):
        raise PlanError(f"{where}: {missing[0]} is missing")


def _spell(value: Any) -> str:
    """A value as Hydra's grammar writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_spell(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spell, value)) + "]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
