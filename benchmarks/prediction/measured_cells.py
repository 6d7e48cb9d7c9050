"""The measured cells of a results folder, and how several seeds become one number with an interval.

Seeds of one setting meet the same segments, so their intervals, which are over segments, are averaged end by end: right
if segments are equally hard for every seed, too wide otherwise. How much seeds differ is not in it: they are shown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from study_record import read_record

from dima.schedule import default_num_denoising_steps

REVEALS = ("none", "one", "cumulative", "progressive", "two-phase", "joint")
"""The order in which tables and figures show them; whatever else there is comes behind."""

AMOUNTS = ("training steps", "updates", "denoising steps")
"""Settings of which a cell has more or less."""

MAIN_GROUPS = ("main", "ladder", "contacts")
"""Groups of a plan whose cells stand side by side in the first tables; the others vary something besides."""

_NOT_SETTINGS = (
    "world_model.reveal",
    "world_model.sampler.reveal_sigma",
    "world_model.sampler.keep_noise",
    "updates",
    "train_steps",
    "num_denoising_steps",
    "world_model.num_denoising_steps",
)
"""Told to the commands, but shown as reveal or as an amount."""


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds: mean, 95 % interval over segments, and each seed's value."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def over_seeds(cls, values: Sequence[float], intervals: Sequence[Sequence[float]]) -> Estimate:
        """The mean of `values`, with the mean of the ends of their intervals."""
        low, high = (fmean(interval[end] for interval in intervals) for end in (0, 1))
        return cls(fmean(values), low, high, tuple(values))

    def minus(self, other: Estimate) -> Estimate:
        """The difference, its interval from both as if they were independent (Zou and Donner's MOVER).

        The same segments are hard for both, so the true interval is narrower.
        """
        mean = self.mean - other.mean
        low = mean - math.hypot(self.mean - self.low, other.high - other.mean)
        high = mean + math.hypot(self.high - self.mean, other.mean - other.low)
        paired = len(self.values) == len(other.values)
        pairs = zip(self.values, other.values, strict=True) if paired else ()
        return Estimate(mean, low, high, tuple(a - b for a, b in pairs))


class MeasuredCell:
    """One cell's record, by the words that tables and figures use."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.name: str = record["cell"]
        self.group: str = record["group"]
        self.dataset: str = record["dataset"]
        self.seed: int = record["seed"]
        self.prediction: dict[str, Any] = record["prediction"]
        self.reveal: str = self.prediction["options"].get("reveal") or self.prediction["model"]
        if record["fit"].get("world_model.sampler.reveal_sigma") is not None:
            self.reveal = "two-phase"  # progressive, on a ladder that shows everybody above that noise
        self.orders: dict[str, Any] = self.prediction["orders"]
        self.setting = self._setting()

    @property
    def field(self) -> str:
        """What errors are of: the state, or what agents observe for a model without one."""
        return "obs" if any(order["state"] is None for order in self.orders.values()) else "state"

    def curve(self, order: str, field: str | None = None) -> dict[str, Any]:
        """The errors of an order."""
        return self.orders[order][field or self.field]

    def baseline(self, name: str, field: str | None = None) -> dict[str, Any]:
        """The errors of a baseline."""
        return self.prediction["baselines" if (field or self.field) == "state" else "baselines_obs"][name]

    def _setting(self) -> dict[str, Any]:
        """What the cell was measured with besides dataset, reveal and seed."""
        fitted, told = self.record["fitted"], {**self.record["fit"], **self.record["predict"]}
        steps = self.prediction["options"].get("num_denoising_steps")
        amounts = (
            fitted["training_steps"],
            max(fitted["updates"].values()),
            steps or default_num_denoising_steps(fitted["num_agents"]),
        )
        others = {name: value for name, value in told.items() if name not in _NOT_SETTINGS}
        return {**dict(zip(AMOUNTS, amounts, strict=True)), **others}

    def differs(self, other: MeasuredCell) -> dict[str, Any]:
        """The settings that are not those of `other`, with their values here (None: as the preset has it)."""
        names = [*self.setting, *(name for name in other.setting if name not in self.setting)]
        return {name: self.setting.get(name) for name in names if self.setting.get(name) != other.setting.get(name)}


def asked_cells(usage: str | None) -> tuple[Path, list[MeasuredCell]]:
    """The results folder that the command line names, and its cells; ends the program with a message on a mistake."""
    if len(sys.argv) != 2:
        raise SystemExit(usage)
    results = Path(sys.argv[1])
    try:
        return results, read_cells(results)
    except ValueError as error:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {error}") from error


def read_cells(results: Path) -> list[MeasuredCell]:
    """Every measured cell below `results`, those of one dataset measured on the same data.

    Raises:
        ValueError: when there is none, or a dataset was not the same for all.
    """
    cells = [MeasuredCell(read_record(path)) for path in sorted((results / "cells").glob("*.json"))]
    if not cells:
        raise ValueError(f"{results / 'cells'} holds no measured cell")
    for dataset in {cell.dataset for cell in cells}:
        seen = {cell.prediction["data"]["fingerprint"]: cell.name for cell in cells if cell.dataset == dataset}
        if len(seen) > 1:
            raise ValueError(f"{' and '.join(seen.values())} were measured on different data called {dataset}")
    return sorted(cells, key=lambda cell: (cell.dataset, _rank(cell.reveal), cell.seed))


def errors_at(curves: Sequence[dict[str, Any]], mark: int) -> Estimate:
    """E after `mark` steps, from one curve for each seed."""
    spelled = str(mark)
    return Estimate.over_seeds(
        [curve["cumulative"][spelled] for curve in curves], [curve["ci95"][spelled] for curve in curves]
    )


def by_reveal(cells: Iterable[MeasuredCell]) -> dict[str, list[MeasuredCell]]:
    """Cells by how actions are revealed."""
    chosen = sorted(cells, key=lambda cell: (_rank(cell.reveal), cell.seed))
    return {
        reveal: [cell for cell in chosen if cell.reveal == reveal] for reveal in dict.fromkeys(c.reveal for c in chosen)
    }


def standard(cells: Sequence[MeasuredCell], dataset: str) -> list[MeasuredCell]:
    """The cells that all others of the dataset are compared with: those of the main groups."""
    return [cell for cell in cells if cell.dataset == dataset and cell.group in MAIN_GROUPS]


@dataclass(frozen=True)
class Effect:
    """Cells that differ from those of the main groups in the same settings."""

    names: tuple[str, ...]
    cells: tuple[MeasuredCell, ...]
    """Those of the main groups included, as far as there is a cell of the same reveal and seed to compare with."""

    def value(self, cell: MeasuredCell) -> str:
        """The settings of a cell, in words."""
        return ", ".join(str(cell.setting.get(name, "preset")) for name in self.names)


def effects(cells: Sequence[MeasuredCell], dataset: str) -> list[Effect]:
    """What was varied on the dataset."""
    mains = standard(cells, dataset)
    if not mains:
        return []
    varied: dict[tuple[str, ...], list[MeasuredCell]] = {}
    for cell in cells:
        if cell.dataset == dataset and (names := tuple(cell.differs(mains[0]))):
            varied.setdefault(names, []).append(cell)
    found: list[Effect] = []
    for names, each in varied.items():
        measured = {(cell.reveal, cell.seed) for cell in each}
        compared = [cell for cell in mains if (cell.reveal, cell.seed) in measured]
        found.append(Effect(names, tuple(sorted([*compared, *each], key=lambda cell: _amount(cell, names)))))
    return found


def _amount(cell: MeasuredCell, names: tuple[str, ...]) -> tuple[Any, ...]:
    amount = cell.setting[names[0]] if names[0] in AMOUNTS else 0
    return _rank(cell.reveal), amount, cell.seed


def _rank(reveal: str) -> int:
    return REVEALS.index(reveal) if reveal in REVEALS else len(REVEALS)
