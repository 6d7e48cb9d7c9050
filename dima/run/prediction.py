"""Measuring one world model's predictions on held-out segments: every order, the baselines, the floor.

What is measured goes into the record that `docs/prediction.md` describes. All orders and models that are compared meet
the same segments, the same bootstrap and, as far as they draw alike, the same noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from worldmodel.dataset import Dataset
from worldmodel.evaluation.baselines import LinearModel, PersistenceModel
from worldmodel.evaluation.curves import Bootstrap, StepErrors, describe_curve, step_errors
from worldmodel.evaluation.forecast import Forecast, forecast
from worldmodel.evaluation.segments import TestSegments, draw_segments
from worldmodel.evaluation.spread import describe_spread
from worldmodel.evaluation.termination import describe_termination
from worldmodel.evaluation.units import Units
from worldmodel.protocol import OrderedWorldModel, StateDecoding, WorldModel
from worldmodel.types import EnvSpec, Trajectory

MARKS = (1, 5, 15, 20)
"""Steps at which errors are cumulated, besides the horizon; 15 and 20 are those of the paper's Table 8."""

FIELDS = ("state", "obs", "reward")

Order = str | tuple[int, ...]


def spell_order(order: Order) -> str:
    """An order as keys of the record name it."""
    return order if isinstance(order, str) else ",".join(map(str, order))


@dataclasses.dataclass(frozen=True)
class Task:
    """What every model is asked: held-out segments, and the units in which its answers are judged."""

    spec: EnvSpec
    training: Sequence[Trajectory]
    """Episodes that baselines may be fitted on."""
    held_out: Sequence[Trajectory]
    """Episodes that the segments come from."""
    units: dict[str, Units]
    """By field: of the state [S], of all agents' observations [N*O], of the reward [1]."""
    by_episode: bool
    """Whether the bootstrap draws whole episodes instead of segments."""
    bootstrap: Bootstrap
    marks: tuple[int, ...]
    horizon: int
    num_segments: int
    num_samples: int
    generator: Callable[[str], torch.Generator]
    """A fresh generator, on the CPU, for the stream of that name."""

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        training: Sequence[Trajectory],
        held_out: Sequence[Trajectory],
        *,
        horizon: int,
        num_segments: int,
        num_samples: int,
        num_resamples: int,
        by_episode: bool,
        generator: Callable[[str], torch.Generator],
    ) -> Task:
        """The task on a dataset; units come from all of its episodes.

        Raises:
            ValueError: when nothing varies in the data, or a number is out of range.
        """
        spec, episodes = dataset.spec, dataset.trajectories
        real = spec.obs_mask()
        if spec.appends_agent_id:
            real[:, -spec.num_agents :] = False
        units = {
            "state": Units.of(torch.cat([episode.state for episode in episodes])),
            "obs": Units.of(torch.cat([episode.obs.flatten(1) for episode in episodes]), real.flatten()),
            "reward": Units.of(torch.cat([episode.reward for episode in episodes])[:, None]),
        }
        if units["obs"].num_live == 0:
            raise ValueError(f"{dataset.path}: no observation varies, so there is no scale to measure errors by")
        marks = tuple(sorted({mark for mark in (*MARKS, horizon) if mark <= horizon}))
        starts = draw_segments(
            held_out,
            context_length=0,
            horizon=horizon,
            num_segments=num_segments,
            generator=generator("segments"),
        )
        return cls(
            spec=spec,
            training=training,
            held_out=held_out,
            units=units,
            by_episode=by_episode,
            bootstrap=Bootstrap(num_segments, num_resamples, groups=starts.episode if by_episode else None),
            marks=marks,
            horizon=horizon,
            num_segments=num_segments,
            num_samples=num_samples,
            generator=generator,
        )

    def segments(self, context_length: int) -> TestSegments:
        """The segments for a model that reads `context_length` steps; they start at the same moments for all."""
        return draw_segments(
            self.held_out,
            context_length=context_length,
            horizon=self.horizon,
            num_segments=self.num_segments,
            generator=self.generator("segments"),
        )

    def errors(self, predicted: Forecast, segments: TestSegments) -> dict[str, StepErrors]:
        """The errors of a forecast by field, of those that are predicted and vary in the data."""
        pairs = compared_values(predicted, segments)
        return {
            name: step_errors(*pair, segments.valid, self.units[name])
            for name, pair in pairs.items()
            if self.units[name].num_live > 0
        }


def compared_values(predicted: Forecast, segments: TestSegments) -> dict[str, tuple[Tensor, Tensor]]:
    """By field: samples [B,M,H,D] and truth [B,H,D]; agents' observations are one vector."""
    pairs = {
        "obs": (predicted.obs.flatten(3), segments.obs.flatten(2)),
        "reward": (predicted.reward[..., None], segments.reward[..., None]),
    }
    if predicted.state is None:
        return pairs
    return {"state": (predicted.state, segments.state), **pairs}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model's forecasts under one order, and what they got wrong."""

    forecast: Forecast
    errors: dict[str, StepErrors]


def variants(model: WorldModel[Any], orders: Sequence[Order]) -> dict[str, WorldModel[Any]]:
    """The model under each of `orders`; a model that knows no orders is the one variant `any`.

    Raises:
        ConfigError: when an order does not fit the number of agents and of denoising steps.
    """
    if not isinstance(model, OrderedWorldModel):
        return {"any": model}
    return {spell_order(order): model.with_order(order) for order in orders}


def measure(model: WorldModel[Any], task: Task, segments: TestSegments, device: torch.device) -> Measured:
    """Forecast every segment; the noise is the same at every call with models that draw alike."""
    generator = torch.Generator(device=device).manual_seed(task.generator("noise").initial_seed())
    predicted = forecast(model, segments, num_samples=task.num_samples, generator=generator)
    return Measured(predicted, task.errors(predicted, segments))


def describe_order(measured: Measured, task: Task, segments: TestSegments) -> dict[str, Any]:
    """Curves, termination and spread of one order, as the record holds them; gains are added by whoever knows them."""
    spread = None
    if task.num_samples > 1:
        pairs = compared_values(measured.forecast, segments)
        spread = {
            name: describe_spread(*pairs[name], segments.valid, task.units[name], task.bootstrap, task.marks)
            if name in measured.errors
            else None
            for name in ("state", "obs")
        }
    return {
        **{name: _curve(measured.errors.get(name), task) for name in FIELDS},
        "termination": describe_termination(measured.forecast.termination, segments.terminated, segments.valid),
        "spread": spread,
    }


def describe_baselines(
    model: WorldModel[Any], task: Task, segments: TestSegments, device: torch.device
) -> dict[str, Any]:
    """What the model has to beat: nothing changes, everything is linear, and itself without the current actions."""
    fitted = {
        kind: kind.fit(task.training, task.spec, model.context_length) for kind in (PersistenceModel, LinearModel)
    }
    once = dataclasses.replace(task, num_samples=1)  # these draw nothing
    cpu = torch.device("cpu")
    errors = {
        "persistence": measure(fitted[PersistenceModel], once, segments, cpu).errors,
        "linear": measure(fitted[LinearModel], once, segments, cpu).errors,
    }
    if isinstance(model, OrderedWorldModel):
        how, blind, blindfold = "hidden", model.without_actions(), segments
    else:
        mean = torch.cat([episode.action for episode in task.training]).mean(dim=0)
        how, blind, blindfold = "mean", model, dataclasses.replace(segments, action=mean.expand_as(segments.action))
    errors["no_action"] = measure(blind, task, blindfold, device).errors
    state = "state" if all("state" in each for each in errors.values()) else "obs"
    sections = {"baselines": state, "baselines_obs": "obs", "baselines_reward": "reward"}
    return {
        **{
            section: {name: _curve(each.get(field), task) for name, each in errors.items()}
            for section, field in sections.items()
        },
        "no_action": how,
    }


def describe_floor(model: WorldModel[Any], task: Task, segments: TestSegments, device: torch.device) -> dict[str, Any]:
    """The error that is left when the true states are decoded; null for a model that decodes none."""
    if not isinstance(model, StateDecoding):
        return {"obs": None}
    true = segments.state.flatten(0, 1).to(device)
    obs = model.decode_states(true).unflatten(0, segments.state.shape[:2]).to(segments.obs.device)
    errors = step_errors(obs.flatten(2)[:, None], segments.obs.flatten(2), segments.valid, task.units["obs"])
    return {"obs": _curve(errors, task)}


def _curve(errors: StepErrors | None, task: Task) -> dict[str, Any] | None:
    return None if errors is None else describe_curve(errors, task.bootstrap, task.marks)
