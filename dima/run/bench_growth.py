"""How the cost of imagining and of learning a model grows: with agents, state size, rollouts and denoising steps.

Environments are made up: only their sizes matter here, so no simulator is needed and any size can be had. The world
model is asked through the contract alone, with its own settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

from dima.run.bench_measure import EAGER
from dima.run.bench_stages import update_call
from dima.run.bench_timing import Call, Timing, median, time_twins
from dima.run.engine import imagination_model
from dima.run.optimize import PartOptimizer
from dima.run.part_training import GATHERED_UPDATES
from dima.run.runtime import Randomness
from dima.run.settings import TrainSettings
from imagination.rollout import imagine
from worldmodel.config import ConfigError
from worldmodel.protocol import WorldModel
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec, Trajectory

Axis = Literal["agents", "state", "rollouts", "denoising_steps"]

VALUES: dict[str, tuple[int, ...]] = {
    "agents": (2, 4, 8, 16, 32, 64),
    "state": (17, 64, 256, 1024),
    "rollouts": (1, 4, 16, 64, 256, 1024, 4096),
    "denoising_steps": (1, 2, 4, 8, 16),
}
"""What is tried along each axis; 17 is the state of HalfCheetah, and so is everything that an axis does not vary."""

IMAGINED = "imagined_step"

_NUM_AGENTS, _STATE_DIM, _ACTION_DIM = 2, 17, 3
_NUM_ROLLOUTS = 128
"""Where rollouts do not vary: a usual size on a CPU."""
_HORIZON = 2
"""Imagined steps of one call. Later ones cost a model with memory more, but 4 096 rollouts must fit into a minute."""
_EPISODES, _EPISODE_STEPS = 4, 50


@dataclasses.dataclass(frozen=True)
class _Point:
    """One size: an imagination and, where it changes with the size, an update of every part."""

    imagine: Call
    num_steps: int
    """Joint env steps that one imagination makes."""
    updates: dict[str, Call]
    eager: Call | None
    """The imagination without the engine, where that is another."""


def grow(
    axes: Sequence[Axis], settings: TrainSettings, repeats: int, device: torch.device, *, compare_eager: bool
) -> dict[str, Any]:
    """What bench.json has under `growth`: `{AXIS: {VALUE: ..}}`, medians over `repeats`.

    A value's record holds `{"imagined_step": {"ms", "cpu_ms"}, "updates": {PART: {"ms", "cpu_ms"}}}`, for one joint env
    step of one rollout and for one update; or `{"skipped": WHY}` where the model cannot be so. `imagined_step` also has
    `"eager": {"ms", "cpu_ms"}` with `compare_eager`, where the engine does it in another way.
    """
    found: dict[str, Any] = {}
    for axis in axes:
        points = dict(_points(axis, settings, device))
        found[axis] = _measure(points, repeats, device, compare_eager=compare_eager)
    return found


def synthetic_spec(num_agents: int, state_dim: int, action_dim: int = _ACTION_DIM) -> EnvSpec:
    """An environment by its sizes; every agent sees the full state, as in the paper."""
    sizes = (state_dim,) * num_agents
    return EnvSpec("synthetic", num_agents, state_dim, sizes, (action_dim,) * num_agents, episode_steps=_EPISODE_STEPS)


def synthetic_episode(spec: EnvSpec, num_steps: int, generator: torch.Generator) -> Trajectory:
    """`num_steps` transitions of noise with the shapes of `spec`; ends, but does not terminate."""

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator)

    ends = torch.zeros(num_steps, dtype=torch.bool)
    truncated = ends.clone()
    truncated[-1] = True
    return Trajectory(
        obs=normal(num_steps + 1, spec.num_agents, spec.obs_dim) * spec.obs_mask(),
        state=normal(num_steps + 1, spec.state_dim),
        action=normal(num_steps, spec.num_agents, spec.action_dim).clamp(-1, 1) * spec.action_mask(),
        reward=normal(num_steps),
        terminated=ends,
        truncated=truncated,
    )


def _points(axis: Axis, settings: TrainSettings, device: torch.device) -> Iterator[tuple[int, _Point | str]]:
    """A point for each value, or why there is none."""
    for value in VALUES[axis]:
        try:
            yield value, _point(axis, value, settings, device)
        except ConfigError as error:
            yield value, str(error)


def _point(axis: Axis, value: int, settings: TrainSettings, device: torch.device) -> _Point:
    spec = synthetic_spec(
        value if axis == "agents" else _NUM_AGENTS,
        value if axis == "state" else _STATE_DIM,
    )
    generator = Randomness(settings.seed, device).generator("bench")  # seeds the first weights, too
    model = settings.world_model_config.build(spec)
    model.to(device)
    policy = settings.policy.build(spec, model, device).policy
    replay = _fill(model, spec, device)
    sampled = _with_denoising_steps(model, value) if axis == "denoising_steps" else model
    num_rollouts = value if axis == "rollouts" else _NUM_ROLLOUTS
    context = replay.sample_contexts(num_rollouts, model.context_length, generator)
    trains = axis in ("agents", "state")  # how many are imagined, and in how many steps, is nothing to the losses
    parts = model.parts().items() if trains else ()
    if settings.engine.capture == "graph":
        raise ConfigError("growth with engine.capture = graph: not measured; use engine.capture=none")
    own = imagination_model(sampled, settings.engine)
    return _Point(
        imagine=lambda: imagine(own, policy, context, _HORIZON, generator),
        eager=None if own is sampled else lambda: imagine(sampled, policy, context, _HORIZON, generator),
        num_steps=num_rollouts * _HORIZON,
        updates={name: _update(model, PartOptimizer(name, part), replay, generator) for name, part in parts},
    )


def _fill(model: WorldModel[Any], spec: EnvSpec, device: torch.device) -> Replay:
    replay = ReplayConfig(_EPISODES * (_EPISODE_STEPS + 1), "uniform").build(spec, 1, device)
    source = torch.Generator().manual_seed(0)
    for _ in range(_EPISODES):
        episode = synthetic_episode(spec, _EPISODE_STEPS, source)
        model.update_statistics(episode)
        replay.append(episode)
    return replay


def _with_denoising_steps(model: Any, num_steps: int) -> WorldModel[Any]:
    if not hasattr(model, "with_sampling"):
        raise ConfigError(f"{type(model).__name__} has no number of denoising steps to choose")
    return model.with_sampling(num_denoising_steps=num_steps)


def _update(model: WorldModel[Any], optimizer: PartOptimizer, replay: Replay, generator: torch.Generator) -> Call:
    update = update_call(optimizer, replay, generator, GATHERED_UPDATES)

    def prepare() -> None:
        model.train(True)
        update.prepare()

    return dataclasses.replace(update, prepare=prepare)


def _measure(
    points: dict[int, _Point | str], repeats: int, device: torch.device, *, compare_eager: bool
) -> dict[str, Any]:
    """All sizes in turns, so that a machine that becomes slower does so for all."""
    calls: dict[tuple[int, str], Call] = {}
    for value, point in points.items():
        if isinstance(point, _Point):
            calls[value, IMAGINED] = point.imagine
            if compare_eager and point.eager is not None:
                calls[value, EAGER] = point.eager
            calls |= {(value, name): update for name, update in point.updates.items()}
    medians = {key: median(each) for key, each in time_twins(calls, repeats, device).items()}
    return {str(value): _record(value, point, medians) for value, point in points.items()}


def _record(value: int, point: _Point | str, medians: dict[tuple[int, str], Timing]) -> dict[str, Any]:
    if isinstance(point, str):
        return {"skipped": point}
    imagined: dict[str, Any] = _clocks(medians[value, IMAGINED], point.num_steps)
    if (value, EAGER) in medians:
        imagined[EAGER] = _clocks(medians[value, EAGER], point.num_steps)
    return {
        IMAGINED: imagined,
        "updates": {name: _clocks(medians[value, name], 1) for name in point.updates},
    }


def _clocks(timing: Timing, count: int) -> dict[str, float]:
    return {"ms": round(1e3 * timing.wall_s / count, 5), "cpu_ms": round(1e3 * timing.cpu_s / count, 5)}
