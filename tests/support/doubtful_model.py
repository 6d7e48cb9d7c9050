"""A small world model that says where it knows nothing, rollouts in it, and an update on them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from imagination.mappo import BehaviourConfig
from imagination.rollout import imagine
from imagination.uncertainty import UncertaintyConfig
from tests.contracts.sound_world_model import SoundModel
from tests.support.dima_models import compose_group
from worldmodel.contract.random_data import random_segment
from worldmodel.types import EnvSpec, Prediction, Segment

SPEC = EnvSpec("pair", 2, 4, obs_sizes=(3, 3), action_sizes=(2, 2), episode_steps=20)
HORIZON, BATCH = 6, 40


class Doubtful(SoundModel):
    """Reports the magnitude of the state it steps from."""

    reports_uncertainty = True

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        return following, dataclasses.replace(prediction, uncertainty=state.states[:, 1].norm(dim=1))


def config(action: str, signal: str = "model", **values: Any) -> UncertaintyConfig:
    numbers: dict[str, Any] = {"num_draws": 4, "threshold": 1.2, "weight": 0.5, **values}
    return UncertaintyConfig(action, signal, **numbers)  # type: ignore[arg-type]


def behaviour() -> BehaviourConfig:
    return compose_group(["+policy=mappo"], "policy")


def roll(model: SoundModel, uncertainty: UncertaintyConfig | None) -> Any:
    torch.manual_seed(0)
    policy = behaviour().policy.build(SPEC, model.actor_dim)
    return imagine(model, policy, context(), HORIZON, torch.Generator().manual_seed(1), uncertainty)


def context() -> Segment:
    return random_segment(SPEC, BATCH, 2, torch.Generator().manual_seed(0))


def doubtful() -> Doubtful:
    torch.manual_seed(0)
    return Doubtful(SPEC)


def learn(model: SoundModel, rollout: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and metrics after one update of a fresh policy and critic."""
    torch.manual_seed(0)
    mappo = behaviour().build(SPEC, model)
    metrics = mappo.update(rollout, torch.Generator().manual_seed(0))
    return {**mappo.policy.state_dict(), **mappo.critic.state_dict()}, metrics
