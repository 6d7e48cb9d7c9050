"""The reward and termination model: what its loss counts, and that imagination repeats what training saw."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.reward_termination import RewardTerminationConfig, RewardTerminationModel
from worldmodel.config import ConfigError, OptimConfig
from worldmodel.normalize import RunningNormalizer
from worldmodel.types import EnvSpec, Segment

SPEC = EnvSpec("test", 2, 3, obs_sizes=(1, 1), action_sizes=(2, 2), episode_steps=9)
CONFIG = RewardTerminationConfig(
    embed_dim=16,
    num_layers=2,
    num_heads=2,
    embedding_dropout=0.0,
    attention_dropout=0.0,
    residual_dropout=0.0,
    window=5,
    head_layers=3,
    action_encoder="attention",
    action_layers=2,
    action_heads=2,
    action_head_dim=4,
    end_loss="bernoulli",
    reward_target="raw",
    optim=OptimConfig(learning_rate=3e-3, weight_decay=0.0, grad_clip=10.0, batch_size=32),
)
GENERATOR = torch.Generator()
VARIANTS = [
    pytest.param({}, id="attention"),
    pytest.param({"action_encoder": "linear", "end_loss": "cross_entropy", "reward_target": "normalized"}, id="linear"),
]


def build(**changes: Any) -> RewardTerminationModel:
    state_norm, reward_norm = RunningNormalizer(3, std_floor=1e-2), RunningNormalizer(1, std_floor=1e-2)
    generator = torch.Generator().manual_seed(5)
    state_norm.update(2 * torch.randn(100, 3, generator=generator) + 1)
    reward_norm.update(10 * torch.randn(100, 1, generator=generator) + 30)
    model = RewardTerminationModel(dataclasses.replace(CONFIG, **changes), SPEC, state_norm, reward_norm)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the small initial weights, where anything looks equal
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def draw_segment(batch: int = 6, steps: int = 5) -> Segment:
    """Rewards depend on the previous action too, and large first state entries terminate."""
    generator = torch.Generator().manual_seed(2)
    state = 2 * torch.randn(batch, steps + 1, 3, generator=generator) + 1
    action = 2 * torch.rand(batch, steps, 2, 2, generator=generator) - 1
    previous = torch.nn.functional.pad(action, (0, 0, 0, 0, 1, 0))[:, :-1]
    return Segment(
        obs=torch.zeros(batch, steps + 1, 2, 1),
        state=state,
        action=action,
        reward=30 + 5 * action[..., 0, 0] - 3 * previous[..., 1, 1] + state[:, :-1, 1],
        terminated=state[:, :-1, 0] > 3,
        valid=torch.ones(batch, steps, dtype=torch.bool),
    )


def part_of(segment: Segment, start: int, stop: int, *, padded: bool) -> Segment:
    """Only the steps start..stop-1 of `segment` are valid: cut out, or left in their place among zeros."""
    if not padded:
        return segment.steps(start, stop)
    valid = torch.zeros_like(segment.valid)
    valid[:, start:stop] = True
    padding = dataclasses.replace(segment, valid=valid).state_valid()

    def keep(tensor: Tensor, mask: Tensor) -> Tensor:
        return tensor * mask.reshape(mask.shape + (1,) * (tensor.ndim - 2))

    return Segment(
        obs=segment.obs,
        state=keep(segment.state, padding),
        action=keep(segment.action, valid),
        reward=keep(segment.reward, valid),
        terminated=keep(segment.terminated, valid).bool(),
        valid=valid,
    )


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize(("start", "stop"), [(2, 5), (0, 3), (1, 4), (4, 5)])
def test_padding_on_either_side_changes_nothing(changes: dict[str, Any], start: int, stop: int) -> None:
    model, segment = build(**changes).eval(), draw_segment()
    padded = model(part_of(segment, start, stop, padded=True), GENERATOR)
    alone = model(part_of(segment, start, stop, padded=False), GENERATOR)
    torch.testing.assert_close(padded.loss, alone.loss)
    torch.testing.assert_close(padded.metrics, alone.metrics)


def test_rows_with_different_padding_are_averaged_over_their_valid_steps() -> None:
    model, segment = build().eval(), draw_segment(batch=3)
    pieces = [(0, 2), (1, 5), (3, 4)]
    rows = [part_of(segment[i : i + 1], *piece, padded=True) for i, piece in enumerate(pieces)]
    joined = Segment(**{name: torch.cat([getattr(row, name) for row in rows]) for name, _ in segment.tensors()})
    losses = torch.stack([model(row, GENERATOR).loss for row in rows])
    steps = torch.tensor([2.0, 4.0, 1.0])
    torch.testing.assert_close(model(joined, GENERATOR).loss, (losses * steps).sum() / steps.sum())


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_loss_equals_a_computation_from_imagined_steps(changes: dict[str, Any]) -> None:
    """Walking with the cache gives the very rewards and continuations that training is graded on."""
    model, segment = build(**changes).eval(), draw_segment()
    reward, continuation = walk(model, segment)
    error = reward - segment.reward
    output = model(segment, GENERATOR)
    torch.testing.assert_close(output.metrics["reward_error"], error.abs().mean(), atol=1e-4, rtol=1e-5)
    unit = model._norms[1].inverse_scale if CONFIG.reward_target != model.config.reward_target else torch.ones(1)
    scaled = (error / unit).abs()
    smooth_l1 = torch.where(scaled < 1, 0.5 * scaled**2, scaled - 0.5).mean()
    likelihood = torch.where(segment.terminated, 1 - continuation, continuation)
    torch.testing.assert_close(output.metrics["reward_loss"], smooth_l1, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(output.metrics["termination_loss"], -likelihood.log().mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.loss.detach(), smooth_l1 - likelihood.log().mean(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def walk(model: RewardTerminationModel, segment: Segment) -> tuple[Tensor, Tensor]:
    cache = model.initial_cache(segment.state.shape[0], "cpu", torch.float32)
    outputs = []
    for t in range(segment.length):
        z = model._norms[0].normalize(segment.state[:, t])
        cache, *output = model.step(cache, z, segment.action[:, t])
        outputs.append(output)
    reward, continuation = zip(*outputs, strict=True)
    return torch.stack(reward, dim=1), torch.stack(continuation, dim=1)


def test_a_rollout_beyond_the_window_starts_again_from_the_current_state() -> None:
    model, segment = build(), draw_segment(steps=8)
    reward, continuation = walk(model, segment)
    again_reward, again_continuation = walk(model, segment.steps(5, 8))
    torch.testing.assert_close(reward[:, 5:], again_reward)
    torch.testing.assert_close(continuation[:, 5:], again_continuation)
    assert not torch.allclose(reward[:, 3:5], walk(model, segment.steps(3, 5))[0], atol=1e-3)


def test_a_later_action_changes_neither_earlier_rewards_nor_ends() -> None:
    model, segment = build().eval(), draw_segment()
    changed = dataclasses.replace(segment, action=segment.action.clone())
    changed.action[:, 3] *= -1
    before, after = walk(model, segment)[0], walk(model, changed)[0]
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=0, rtol=0)
    assert bool(((before - after)[:, 3:].abs().amax(dim=0) > 1e-3).all())
    first = part_of(segment, 0, 3, padded=True)
    torch.testing.assert_close(model(first, GENERATOR).loss, model(segment.steps(0, 3), GENERATOR).loss)


def test_agents_are_told_apart() -> None:
    model, segment = build(), draw_segment()
    swapped = dataclasses.replace(segment, action=segment.action.flip(2))
    assert not torch.allclose(walk(model, segment)[0], walk(model, swapped)[0], atol=1e-3)


def test_recall_counts_the_real_ends_and_is_whole_without_any() -> None:
    model, segment = build().eval(), draw_segment(batch=40)
    predicted = walk(model, segment)[1] < 0.5
    found = (predicted & segment.terminated).sum() / segment.terminated.sum()
    metrics = model(segment, GENERATOR).metrics
    torch.testing.assert_close(metrics["termination_recall"], found)
    torch.testing.assert_close(metrics["termination_rate"], segment.terminated.float().mean())
    nothing_ends = dataclasses.replace(segment, terminated=torch.zeros_like(segment.terminated))
    assert float(model(nothing_ends, GENERATOR).metrics["termination_recall"]) == 1.0


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_parameter_gets_a_gradient(changes: dict[str, Any]) -> None:
    model = build(**changes)
    model(draw_segment(), GENERATOR).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_empty_rows_are_ignored_and_an_empty_batch_is_safe() -> None:
    model, segment = build(), draw_segment()
    some = dataclasses.replace(segment, valid=segment.valid & (torch.arange(6) < 4)[:, None])
    torch.testing.assert_close(model(some, GENERATOR).loss, model(segment[:4], GENERATOR).loss)
    none = dataclasses.replace(segment, valid=torch.zeros_like(segment.valid))
    output = model(none, GENERATOR)
    output.loss.backward()
    assert float(output.loss.detach()) == 0
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    assert all(bool(torch.isfinite(metric)) for metric in output.metrics.values())


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_small_batch_is_learned_by_heart(changes: dict[str, Any]) -> None:
    norms = RunningNormalizer(3, std_floor=1e-2), RunningNormalizer(1, std_floor=1e-2)
    segment = draw_segment(batch=4)
    norms[0].update(segment.state)
    norms[1].update(segment.reward[..., None])
    config = dataclasses.replace(CONFIG, embed_dim=32, **changes)
    model = RewardTerminationModel(config, SPEC, *norms)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(500):
        optimizer.zero_grad()
        model(segment, GENERATOR).loss.backward()
        optimizer.step()
    metrics = model.eval()(segment, GENERATOR).metrics
    assert float(metrics["reward_error"]) < 0.6  # rewards vary by about 4
    assert float(metrics["termination_loss"]) < 0.02
    assert float(metrics["termination_recall"]) == 1.0


def test_parameter_count_of_the_published_model() -> None:
    """8 440 066 for HalfCheetah-2x3 with one logit for the end."""
    spec = EnvSpec("hc", 2, 17, obs_sizes=(19, 19), action_sizes=(3, 3), episode_steps=1000)
    published = dataclasses.replace(
        CONFIG, embed_dim=256, num_layers=6, num_heads=4, window=15, action_layers=3, action_heads=8, action_head_dim=32
    )
    norms = RunningNormalizer(17, std_floor=1e-2), RunningNormalizer(1, std_floor=1e-2)
    model = RewardTerminationModel(published, spec, *norms)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count == {
        "state_encoder": 137_216,
        "action_encoder": 3_292_416,
        "reward_head": 131_841,
        "end_head": 131_841,
        "transformer": 4_746_752,
    }
    assert sum(count.values()) == 8_440_066


def test_unusable_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_heads = 3: expected a divisor of embed_dim = 16"):
        dataclasses.replace(CONFIG, num_heads=3)
    with pytest.raises(ConfigError, match="window = 0: expected at least 1"):
        dataclasses.replace(CONFIG, window=0)
    with pytest.raises(ConfigError, match="attention_dropout = 1.0: expected a probability"):
        dataclasses.replace(CONFIG, attention_dropout=1.0)
