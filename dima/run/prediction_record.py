"""One run's record: everything that `dima predict` measures of one model, as `docs/prediction.md` describes it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dima.run.prediction import Task, describe_baselines, describe_floor, describe_order, measure, spell_order
from dima.run.prediction_fan import choose_fan, describe_fan, fan_lines
from dima.run.prediction_gain import TrueChanges, describe_gains
from dima.run.prediction_schema import SCHEMA, validate
from dima.run.prediction_tables import describe_pairs
from dima.run.saved_run import SavedModel
from worldmodel.dataset import Dataset
from worldmodel.evaluation.curves import StepErrors
from worldmodel.evaluation.segments import TestSegments
from worldmodel.protocol import WorldModel
from worldmodel.types import Trajectory

_MODEL_OPTIONS = ("reveal", "num_denoising_steps", "target", "sigma_offset_noise")
_SAMPLER_OPTIONS = ("solver", "sigma_min", "sigma_max", "reveal_sigma", "num_refine_steps", "keep_noise")


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
    """A record, and the errors that others are compared with."""

    record: dict[str, Any]
    errors: dict[str, dict[str, StepErrors]]
    """By order and field."""


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
    began, device, model = time.monotonic(), opened.saved.device, opened.model
    segments = task.segments(model.context_length)
    orders, errors, lines = {}, {}, {}
    fan = choose_fan(task, segments)
    for name, variant in opened.models.items():
        measured = measure(variant, task, segments, device)
        orders[name], errors[name] = describe_order(measured, task, segments), measured.errors
        if fan is not None and measured.forecast.state is not None:
            lines[name] = fan_lines(fan, segments, measured.forecast.state)
        advance()
    baselines = describe_baselines(model, task, segments, device)
    advance()
    predicts_state = all("state" in each for each in errors.values())
    gains, how = describe_gains(
        opened.models, task, true, predicts_state=predicts_state, num_samples=gain_samples, device=device
    )
    advance()
    record = {
        "schema": SCHEMA,
        **_asked(opened, task, dataset, segments, seed),
        "marks": list(task.marks),
        "units": _units(task),
        "orders": {name: {**order, **gains[name]} for name, order in orders.items()},
        "differences": describe_pairs(errors, task),
        "floor": describe_floor(model, task, segments, device),
        **baselines,
        "action_gain": how,
        "fan": describe_fan(fan, segments, lines) if fan is not None and lines else None,
        "runtime": {
            "predict_s": round(time.monotonic() - began, 3),
            "imagined_steps": len(orders) * task.num_segments * task.num_samples * task.horizon,
        },
    }
    validate(record)
    return Measurement(record, errors)


def _asked(opened: Opened, task: Task, dataset: Dataset, segments: TestSegments, seed: int) -> dict[str, Any]:
    """Which model was measured, and on what."""
    saved = opened.saved
    return {
        "run": str(saved.path),
        "checkpoint": saved.step,
        "env": saved.spec.env_id,
        "versions": dict(saved.spec.versions),
        "model": type(saved.model).__name__,
        "options": _options(opened.model, saved),
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
    }


def _options(model: Any, saved: SavedModel) -> dict[str, Any]:
    """What the model's configuration says of agents and noise levels, for models that have such options."""
    config = getattr(model, "config", None)
    options = {name: getattr(config, name) for name in _MODEL_OPTIONS if hasattr(config, name)}
    sampler = getattr(config, "sampler", None)
    options |= {name: getattr(sampler, name) for name in _SAMPLER_OPTIONS if hasattr(sampler, name)}
    if hasattr(model, "reveal"):
        options["num_denoising_steps"] = model.reveal.num_steps  # where the configuration leaves it to a rule
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
