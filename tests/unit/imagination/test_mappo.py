"""One update taken apart: targets, shared advantage, clipping, survival, faults, repetition."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from imagination.critic import CriticConfig
from imagination.mappo import BehaviourConfig, Mappo, MappoConfig
from imagination.policy import PolicyConfig
from imagination.rollout import imagine
from worldmodel.config import ConfigError
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, ImaginedRollout, Segment

Starts = Callable[[int, int], Segment]


@pytest.fixture
def make_mappo(
    policy_config: Callable[..., PolicyConfig],
    critic_config: Callable[..., CriticConfig],
    mappo_config: Callable[..., MappoConfig],
    point_spec: EnvSpec,
) -> Callable[..., Mappo]:
    """Small networks with the same first weights at every call; changes go to the update's settings."""

    def make(critic: dict[str, Any] | None = None, **changes: Any) -> Mappo:
        torch.manual_seed(7)
        small = {"hidden_dims": [16], "input_layer_norm": False}
        return Mappo(
            mappo_config(**changes),
            policy_config(**small).build(point_spec, 4),
            critic_config(**small, **(critic or {})).build(2),
        )

    return make


@pytest.fixture
def rollout(make_mappo: Callable[..., Mappo], point_world: WorldModel[Any], starts: Starts) -> ImaginedRollout:
    return roll(make_mappo(), point_world, starts)


def roll(mappo: Mappo, world: WorldModel[Any], starts: Starts, batch: int = 32) -> ImaginedRollout:
    return imagine(world, mappo.policy, starts(batch, 0), 6, generator())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(mappo: Mappo) -> Tensor:
    parameters = [*mappo.policy.parameters(), *mappo.critic.parameters()]
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def test_first_ratio_is_one_so_the_first_step_is_plain_policy_gradient(
    make_mappo: Callable[..., Mappo], rollout: ImaginedRollout
) -> None:
    mappo = make_mappo(epochs=1, entropy_coefficient=0.0, grad_clip=1e9, critic_learning_rate=1e-9)
    with torch.no_grad():
        value = mappo.critic(rollout.critic_view)  # before any update the critic speaks in units of reward
    metrics = mappo.update(rollout, generator())
    assert metrics["policy/clip_fraction"] == 0
    assert metrics["policy/approx_kl"].abs() < 1e-6
    # The standardised advantage has mean 0, and so has the objective while every ratio is 1.
    assert metrics["policy/loss"].abs() < 1e-5
    returns = value[:, -1]
    gains: list[Tensor] = []
    for t in reversed(range(6)):
        returns = rollout.reward[:, t] + 0.99 * (0.05 * value[:, t + 1] + 0.95 * returns)
        gains.append(returns - value[:, t])
    advantage = torch.stack(gains[::-1], dim=1)
    torch.testing.assert_close(metrics["imagination/advantage_std"], advantage.std(correction=0))
    fresh = make_mappo()
    standardised = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-4)
    log_prob, _ = fresh.policy.evaluate(rollout.actor_view[:, :-1], rollout.action)
    (-(standardised[..., None] * log_prob).mean()).backward()
    gradient = torch.cat(
        [parameter.grad.flatten() for parameter in fresh.policy.parameters() if parameter.grad is not None]
    )
    torch.testing.assert_close(metrics["policy/grad_norm"], gradient.norm(), rtol=1e-3, atol=0.0)


def test_clipping_stops_what_went_too_far(make_mappo: Callable[..., Mappo], rollout: ImaginedRollout) -> None:
    # An old policy under which every action was far less likely: all ratios are above 1 + clip, so rows of positive
    # advantage give no gradient, and with only such rows nothing at all moves.
    mappo = make_mappo(epochs=1, entropy_coefficient=0.0)
    batch, _ = mappo._prepare(dataclasses.replace(rollout, log_prob=rollout.log_prob - 1))
    loss, metrics = mappo._actor_loss(batch[batch.advantage > 0])
    assert metrics["policy/clip_fraction"] == 1
    gradients = torch.autograd.grad(loss, list(mappo.policy.parameters()))
    assert not any(gradient.any() for gradient in gradients)
    loss, _ = mappo._actor_loss(batch[batch.advantage < 0])
    assert any(gradient.any() for gradient in torch.autograd.grad(loss, list(mappo.policy.parameters())))


def test_all_agents_share_the_advantage_and_padded_actions_have_no_say(
    make_mappo: Callable[..., Mappo], rollout: ImaginedRollout
) -> None:
    mappo = make_mappo()
    batch, _ = mappo._prepare(rollout)
    assert batch.advantage.shape == (32 * 6,)
    junk = rollout.action.clone()
    junk[:, :, 1, 1] = 0.7  # not an action of the second agent
    padded = dataclasses.replace(rollout, action=junk)
    first, second = make_mappo(), make_mappo()
    first.update(rollout, generator())
    second.update(padded, generator())
    assert torch.equal(weights(first), weights(second))


def test_survival_weighting_acts_only_after_a_predicted_end(
    make_mappo: Callable[..., Mappo], rollout: ImaginedRollout, ending_world: WorldModel[Any], starts: Starts
) -> None:
    plain, weighted = make_mappo(), make_mappo(survival_weighting=True)
    plain.update(rollout, generator())
    weighted.update(rollout, generator())
    torch.testing.assert_close(weights(plain), weights(weighted), rtol=0, atol=0)
    ending = roll(make_mappo(), ending_world, starts)  # every episode ends at its third step
    results = []
    for scale in (1.0, -3.0):
        later = ending.reward.clone()
        later[:, 3:] *= scale
        changed = dataclasses.replace(ending, reward=later)
        plain, weighted = make_mappo(), make_mappo(survival_weighting=True)
        plain.update(changed, generator())
        weighted.update(changed, generator())
        results.append((weights(plain), weights(weighted)))
    assert not torch.equal(results[0][0], results[1][0]), "unweighted, rewards after the end are learned from"
    assert torch.equal(results[0][1], results[1][1]), "weighted, they have no effect"


def test_minibatches_are_equal_parts_in_random_order(
    make_mappo: Callable[..., Mappo], rollout: ImaginedRollout
) -> None:
    mappo = make_mappo(epochs=2, minibatches=5)
    batch, _ = mappo._prepare(rollout)
    parts = [part.target for part in mappo._minibatches(batch, generator())]
    assert [len(part) for part in parts] == [38] * 10  # 192 rows
    first, second = torch.cat(parts[:5]), torch.cat(parts[5:])
    assert not torch.equal(first, second)
    assert len(first.unique()) == len(first)
    assert torch.isin(first, batch.target).all()


def test_same_seed_same_update_and_loading_goes_on_exactly(
    make_mappo: Callable[..., Mappo], rollout: ImaginedRollout
) -> None:
    one, two = make_mappo(minibatches=3), make_mappo(minibatches=3)
    for _ in range(2):
        one.update(rollout, generator(4))
        two.update(rollout, generator(4))
    assert torch.equal(weights(one), weights(two))
    loaded = make_mappo(minibatches=3)
    loaded.load_state_dict(one.state_dict())
    one_metrics, loaded_metrics = one.update(rollout, generator(5)), loaded.update(rollout, generator(5))
    assert torch.equal(weights(one), weights(loaded))
    assert one_metrics == loaded_metrics
    assert not torch.equal(weights(two), weights(one))


def test_a_bad_number_changes_nothing_and_is_named(make_mappo: Callable[..., Mappo], rollout: ImaginedRollout) -> None:
    mappo = make_mappo(minibatches=2)
    mappo.update(rollout, generator())
    before = weights(mappo)
    statistics = mappo.state_dict()["critic"]["normalizer.mean"].clone()
    bad = rollout.reward.clone()
    bad[3, 2] = torch.inf
    with pytest.raises(FloatingPointError, match=r"reward\[3, 2\] is inf"):
        mappo.update(dataclasses.replace(rollout, reward=bad), generator())
    # A finite rollout whose ratios overflow: only the gradient shows it.
    overflow = dataclasses.replace(rollout, log_prob=torch.full_like(rollout.log_prob, -1e6))
    with pytest.raises(FloatingPointError, match="policy/grad_norm is"):
        mappo.update(overflow, generator())
    assert torch.equal(weights(mappo), before)
    assert torch.equal(mappo.state_dict()["critic"]["normalizer.mean"], statistics)
    reference = make_mappo(minibatches=2)
    reference.update(rollout, generator())
    mappo.update(rollout, generator(1))
    reference.update(rollout, generator(1))
    assert torch.equal(weights(mappo), weights(reference)), "the optimisers were restored too"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("head", ["gaussian", "beta"])
def test_updates_on_its_device(
    device: str,
    head: str,
    policy_config: Callable[..., PolicyConfig],
    critic_config: Callable[..., CriticConfig],
    mappo_config: Callable[..., MappoConfig],
    point_spec: EnvSpec,
    point_world: WorldModel[Any],
) -> None:
    config = BehaviourConfig(policy_config(head=head), critic_config(), mappo_config(minibatches=2), 8, 5)
    mappo = config.build(point_spec, point_world, device)
    on_device = torch.Generator(device).manual_seed(0)
    view = torch.randn(8, 6, 2, 4, generator=on_device, device=device)
    with torch.no_grad():
        action, log_prob = mappo.policy.sample(view[:, :-1], on_device)
    numbers = torch.rand(8, 5, device=device, generator=on_device)
    rollout = ImaginedRollout(view, view[:, :, 0, :2], action, log_prob, numbers, numbers)
    before = weights(mappo)
    metrics = mappo.update(rollout, on_device)
    assert all(value.device.type == device and torch.isfinite(value) for value in metrics.values())
    assert not torch.equal(before, weights(mappo))


def test_metrics_are_the_documented_ones(make_mappo: Callable[..., Mappo], rollout: ImaginedRollout) -> None:
    metrics = make_mappo(critic={"value_normalization": "none"}).update(rollout, generator())
    assert {
        "policy/entropy", "policy/clip_fraction", "policy/approx_kl", "policy/std", "critic/loss",
        "critic/explained_variance", "imagination/reward_mean", "imagination/return_mean",
        "imagination/continuation_mean", "imagination/advantage_std",
    } <= set(metrics)  # fmt: skip
    assert all(value.ndim == 0 and torch.isfinite(value) for value in metrics.values())
    assert metrics["policy/std"].item() == pytest.approx(0.3655, abs=0.01)
    torch.testing.assert_close(metrics["imagination/reward_mean"], rollout.reward.mean())


def test_behaviour_config_builds_what_fits_the_model(
    policy_config: Callable[..., PolicyConfig],
    critic_config: Callable[..., CriticConfig],
    mappo_config: Callable[..., MappoConfig],
    point_spec: EnvSpec,
    point_world: WorldModel[Any],
    starts: Starts,
) -> None:
    def behaviour(minibatches: int) -> BehaviourConfig:
        return BehaviourConfig(policy_config(), critic_config(), mappo_config(minibatches=minibatches), 4, 5)

    mappo = behaviour(2).build(point_spec, point_world)
    mappo.update(roll(mappo, point_world, starts, batch=4), generator())
    with pytest.raises(ConfigError, match="at most 20 minibatches"):
        behaviour(21)
