"""A team learns in imagination what is best, where what is best is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from imagination.critic import CriticConfig
from imagination.mappo import Mappo, MappoConfig
from imagination.policy import PolicyConfig
from imagination.rollout import imagine
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, Segment

HORIZON = 8


def mean_return(
    world: WorldModel[Any], act: Callable[[torch.Tensor], torch.Tensor], context: Segment, generator: torch.Generator
) -> float:
    """Mean over starts of the sum of rewards."""
    world.train(False)
    state = world.start(context, generator=generator)
    total = torch.zeros(context.state.shape[0])
    for _ in range(HORIZON):
        state, prediction = world.step(state, act(world.view(state).actor).clamp(-1, 1), generator=generator)
        total += prediction.reward
    return total.mean().item()


def best_action(actor_view: torch.Tensor) -> torch.Tensor:
    """Both agents share the first axis, the first agent alone can move the second."""
    point = actor_view[:, 0, :2]
    first_axis = -point[:, 0] / (2 * 0.25)
    alone = -point[:, 1] / 0.25
    return torch.stack(
        [torch.stack([first_axis, alone], dim=1), torch.stack([first_axis, torch.zeros_like(alone)], dim=1)], dim=1
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"head": "gaussian"}, id="gaussian-published"),
        pytest.param({"head": "gaussian", "mean": "tanh", "std": "free"}, id="gaussian-tanh-free"),
        pytest.param({"head": "beta"}, id="beta"),
    ],
)
def test_team_comes_close_to_the_best_return(
    changes: dict[str, str],
    point_world: WorldModel[Any],
    point_spec: EnvSpec,
    starts: Callable[[int, int], Segment],
    policy_config: Callable[..., PolicyConfig],
    critic_config: Callable[..., CriticConfig],
    mappo_config: Callable[..., MappoConfig],
) -> None:
    config = mappo_config(clip=0.2, actor_learning_rate=2e-3, critic_learning_rate=2e-3, minibatches=2)
    policy = policy_config(hidden_dims=[32, 32], input_layer_norm=False, **changes).build(point_spec, 4)
    critic = critic_config(hidden_dims=[32, 32], input_layer_norm=False).build(2)
    mappo = Mappo(config, policy, critic)
    generator = torch.Generator().manual_seed(0)
    test_starts = starts(512, 10**6)
    untrained = mean_return(point_world, policy.mode, test_starts, generator)
    best = mean_return(point_world, best_action, test_starts, generator)
    metrics: dict[str, torch.Tensor] = {}
    for update in range(60):
        rollout = imagine(point_world, policy, starts(64, update), HORIZON, generator)
        metrics = mappo.update(rollout, generator)
    trained = mean_return(point_world, policy.mode, test_starts, generator)
    assert (trained - untrained) / (best - untrained) > 0.95, (untrained, trained, best)
    assert metrics["critic/explained_variance"] > 0.5
