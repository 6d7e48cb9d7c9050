"""The action-gain diagnostic on recorded moments: the simulator's answer once, each model's under every order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dima.run.prediction import Task
from envs.base import EnvConfig, EnvError, RestorableEnv
from envs.perturb import perturb_one_agent, try_actions
from worldmodel.evaluation.action_gain import describe_gain, model_changes
from worldmodel.evaluation.curves import Bootstrap
from worldmodel.evaluation.segments import TestSegments, draw_segments
from worldmodel.protocol import WorldModel

_MOMENTS_A_CALL = 10
"""A model may draw one random order of agents a call: few moments each, so that the gains are those of many orders."""


@dataclasses.dataclass(frozen=True)
class TrueChanges:
    """What changing one agent's action truly does at B recorded moments, or why that cannot be known."""

    moments: TestSegments | None
    """The moments, with contexts of the length asked for."""
    actions: Tensor | None
    """[B,1+N,N,A] the recorded joint actions and their variants."""
    change: Tensor | None
    """[B,N,S] the true changes of the next state."""
    perturbation_std: float
    note: str | None


def true_changes(
    env_config: EnvConfig, task: Task, *, context_length: int, num_states: int, perturbation_std: float
) -> TrueChanges:
    """Try changed actions in the simulator at `num_states` held-out moments (or as many as there are)."""
    env = env_config.build()
    try:
        if not isinstance(env, RestorableEnv):
            return _unknown(perturbation_std, f"{env.spec.env_id} cannot go back to an earlier moment")
        possible = sum(episode.length for episode in task.held_out)
        moments = draw_segments(
            task.held_out,
            context_length=context_length,
            horizon=1,
            num_segments=min(num_states, possible),
            generator=task.generator("moments"),
        )
        actions = perturb_one_agent(
            moments.action[:, 0], task.spec, perturbation_std=perturbation_std, generator=task.generator("perturbation")
        )
        reached = try_actions(env, task.held_out, episode=moments.episode, start=moments.start, actions=actions)
    except EnvError as error:
        return _unknown(perturbation_std, str(error))
    finally:
        env.close()
    return TrueChanges(moments, actions, reached[:, 1:] - reached[:, :1], perturbation_std, None)


def describe_gains(
    models: Mapping[str, WorldModel[Any]],
    task: Task,
    true: TrueChanges,
    *,
    predicts_state: bool,
    num_samples: int,
    device: torch.device,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """By order: gains, intervals and r2 (nulls where they cannot be measured); and how they were measured."""
    nothing = {"action_gain": None, "action_gain_ci95": None, "action_gain_r2": None}
    if not predicts_state:
        true = _unknown(true.perturbation_std, "there is no predicted global state that varies")
    if true.moments is None or true.actions is None or true.change is None:
        return dict.fromkeys(models, nothing), _how(true, None, None)
    still = torch.nonzero((task.units["state"].normalize(true.change) == 0).all(dim=-1).all(dim=0))[:, 0].tolist()
    if still:
        agents = ", ".join(str(agent + 1) for agent in still)
        note = f"changing the actions of agents {agents} changed no true next state at any of the moments"
        return dict.fromkeys(models, nothing), _how(dataclasses.replace(true, note=note), None, None)
    groups = true.moments.episode if task.by_episode else None
    bootstrap = Bootstrap(true.moments.num_segments, len(task.bootstrap.weights), groups=groups)
    gains: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        generator = torch.Generator(device=device).manual_seed(task.generator("gain_noise").initial_seed())
        change = model_changes(
            model,
            true.moments.context,
            true.actions,
            num_samples=num_samples,
            generator=generator,
            batch_rows=_MOMENTS_A_CALL * num_samples,
        )
        gains[name] = describe_gain(change, true.change, task.units["state"], bootstrap)
    return gains, _how(true, true.moments.num_segments, num_samples)


def _unknown(perturbation_std: float, note: str) -> TrueChanges:
    return TrueChanges(None, None, None, perturbation_std, note)


def _how(true: TrueChanges, states: int | None, samples: int | None) -> dict[str, Any]:
    return {"perturbation_std": true.perturbation_std, "states": states, "samples": samples, "note": true.note}
