"""What a rollout records, and that it can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from imagination.policy import Policy, PolicyConfig
from imagination.rollout import evaluation_mode, imagine
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, ImaginedRollout, Segment

Starts = Callable[[int, int], Segment]


@pytest.fixture
def policy(policy_config: Callable[..., PolicyConfig], point_spec: EnvSpec) -> Policy:
    """A Gaussian so wide that many actions leave [-1, 1]."""
    return policy_config(std="free", log_std_init=0.0).build(point_spec, 4)


def roll(world: WorldModel[Any], policy: Policy, context: Segment, horizon: int = 5, seed: int = 0) -> ImaginedRollout:
    return imagine(world, policy, context, horizon, torch.Generator().manual_seed(seed))


def test_steps_follow_the_law_of_the_world(point_world: WorldModel[Any], policy: Policy, starts: Starts) -> None:
    context = starts(7, 0)
    rollout = roll(point_world, policy, context)
    assert rollout.action.abs().max() > 1, "actions are kept as drawn"
    assert point_world.largest_action == 1.0, "and clamped for the model"  # type: ignore[attr-defined]
    point = context.state[:, -1]
    for t in range(5):
        assert torch.equal(rollout.critic_view[:, t], point)
        assert torch.equal(rollout.actor_view[:, t, 1], torch.cat([point, torch.tensor([[0.0, 1.0]] * 7)], dim=1))
        point = point + 0.25 * rollout.action[:, t].clamp(-1, 1).sum(dim=1)
        torch.testing.assert_close(rollout.reward[:, t], -point.square().sum(dim=1))
    assert torch.equal(rollout.critic_view[:, 5], point)
    assert rollout.actor_view.shape == (7, 6, 2, 4)
    log_prob, _ = policy.evaluate(rollout.actor_view[:, :-1], rollout.action)
    torch.testing.assert_close(rollout.log_prob, log_prob, rtol=1e-5, atol=1e-5)
    assert not any(tensor.requires_grad for _, tensor in rollout.tensors())


def test_predicted_ends_are_recorded_and_do_not_stop_the_rollout(
    ending_world: WorldModel[Any], policy: Policy, starts: Starts
) -> None:
    rollout = roll(ending_world, policy, starts(3, 0))
    assert rollout.continuation.tolist() == [[1.0, 1.0, 0.0, 1.0, 1.0]] * 3


def test_same_generator_same_rollout(point_world: WorldModel[Any], policy: Policy, starts: Starts) -> None:
    first, second, other = (roll(point_world, policy, starts(4, 0), seed=seed) for seed in (0, 0, 1))
    for name, tensor in first.tensors():
        assert torch.equal(tensor, getattr(second, name)), name
    assert not torch.equal(first.action, other.action)


def test_dropout_is_off_in_imagination_and_the_mode_is_restored(
    point_world: WorldModel[Any], policy: Policy, starts: Starts
) -> None:
    point_world.train(True)
    before = torch.get_rng_state()
    roll(point_world, policy, starts(4, 0))
    assert torch.equal(before, torch.get_rng_state()), "nothing but the given generator was used"
    assert point_world.training
    with pytest.raises(KeyError), evaluation_mode(point_world):
        raise KeyError
    assert point_world.training
    point_world.train(False)
    roll(point_world, policy, starts(4, 0))
    assert not point_world.training
