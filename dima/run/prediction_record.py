"""One run's record: everything that `dima predict` measures of one model, as `docs/prediction.md` describes it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dima.run.prediction import (
    Measured,
    Task,
    describe_baselines,
    describe_fan,
    describe_floor,
    describe_order,
    measure,
    spell_order,
)
from dima.run.prediction_gain import TrueChanges, describe_gains
from dima.run.prediction_schema import SCHEMA, validate
from dima.run.prediction_tables import describe_pairs
from dima.run.saved_run import SavedModel
from worldmodel.dataset import Dataset
from worldmodel.protocol import WorldModel
from worldmodel.types import Trajectory


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run's model as it is to be measured, and the data that is held out from it."""

    label: str
    saved: SavedModel
    models: dict[str, WorldModel[Any]]
    """By order."""
    training: Sequence[Trajectory]
    held_out: Sequence[Trajectory]

    @property
    def model(self) -> WorldModel[Any]:
        """The model under the first order."""
        return next(iter(self.models.values()))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A record, and by order what it was made from."""

    record: dict[str, Any]
    measured: dict[str, Measured]


def measure_run(
    opened: Opened,
    task: Task,
    dataset: Dataset,
    true: TrueChanges,
    *,
    gain_samples: int,
    seed: int,
    advance: Callable[[], None],
) -> Measurement:
    """Measure one run; `advance` is called after each forecast.

    Raises:
        FloatingPointError: naming where, when the model predicts a value that is not finite.
    """
    began, saved, device, model = time.monotonic(), opened.saved, opened.saved.device, opened.model
    segments = task.segments(model.context_length)
    measured: dict[str, Measured] = {}
    for name, variant in opened.models.items():
        measured[name] = measure(variant, task, segments, device)
        advance()
    baselines = describe_baselines(model, task, segments, device)
    advance()
    gains, how = describe_gains(opened.models, task, true, num_samples=gain_samples, device=device)
    advance()
    record = {
        "schema": SCHEMA,
        "run": str(saved.path),
        "checkpoint": saved.step,
        "env": saved.spec.env_id,
        "versions": dict(saved.spec.versions),
        "model": type(saved.model).__name__,
        "options": _options(model, saved),
        "data": {
            "path": str(dataset.path),
            "fingerprint": dataset.fingerprint,
            "episodes": len(opened.held_out),
            "steps": sum(episode.length for episode in opened.held_out),
            "which": "held_out",
        },
        "seed": seed,
        "horizon": task.horizon,
        "segments": segments.num_segments,
        "complete_segments": int(segments.valid.all(dim=1).sum()),
        "samples": task.num_samples,
        "bootstrap": {"resamples": len(task.bootstrap.weights), "by": "episodes" if task.by_episode else "segments"},
        "marks": list(task.marks),
        "units": _units(task),
        "orders": {name: {**describe_order(each, task, segments), **gains[name]} for name, each in measured.items()},
        "differences": describe_pairs({name: each.errors for name, each in measured.items()}, task),
        "floor": describe_floor(model, task, segments, device),
        **baselines,
        "action_gain": how,
        "fan": describe_fan(measured, task, segments),
        "runtime": {
            "predict_s": round(time.monotonic() - began, 3),
            "imagined_steps": len(measured) * task.num_segments * task.num_samples * task.horizon,
        },
    }
    validate(record)
    return Measurement(record, measured)


def _options(model: Any, saved: SavedModel) -> dict[str, Any]:
    """What the model's configuration says of agents and noise levels, for models that have such options."""
    config = getattr(model, "config", None)
    names = ("reveal", "num_denoising_steps", "target", "sigma_offset_noise")
    options = {name: getattr(config, name) for name in names if hasattr(config, name)}
    if hasattr(saved.settings.world_model, "order"):
        options["order"] = spell_order(saved.settings.world_model.order)
    return options


def _units(task: Task) -> dict[str, Any]:
    described = {
        name: {"std": unit.std.tolist(), "constant": torch.nonzero(~unit.live)[:, 0].tolist()}
        for name, unit in task.units.items()
    }
    return {
        "normalized": "standard deviations of each dimension in the dataset, mean over the dimensions that vary",
        "raw": "the environment's own units, mean over the same dimensions",
        "state": described["state"],
        "obs": described["obs"],
        "reward": {"std": float(task.units["reward"].std[0])},
    }
