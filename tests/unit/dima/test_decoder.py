"""The state decoder: what it learns from, what it writes exactly, and what it can learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.decoder import DecoderConfig, StateDecoder
from worldmodel.config import ConfigError, OptimConfig
from worldmodel.normalize import RunningNormalizer
from worldmodel.types import EnvSpec, Segment

SPEC = EnvSpec("test", 2, 4, obs_sizes=(3, 2), action_sizes=(2, 1), episode_steps=9, appends_agent_id=True)
MAP = torch.tensor([[2.0, 0, 0, 1], [0, 30, 0, 0], [0, 0, 1, -1], [1, 1, 0, 0], [0, 0, 0.5, 2]])
"""The five entries that SPEC's agents observe, as a linear function of the state."""
OPTIM = OptimConfig(learning_rate=3e-3, weight_decay=0.0, grad_clip=10.0, batch_size=32)
CONFIG = DecoderConfig(
    quantizer="fsq",
    hidden_dim=32,
    num_layers=3,
    num_tokens=12,
    levels=(8, 6, 5),
    code_dim=8,
    num_codes=16,
    codebook_decay=0.8,
    commitment_weight=10.0,
    loss="absolute",
    target="normalized",
    optim=OPTIM,
)
GENERATOR = torch.Generator()


def observe(state: Tensor) -> Tensor:
    """[*,S] -> [*,2,5]: three and two own entries, one entry of padding, the agent's id."""
    own = state @ MAP.T
    first = torch.cat([own[..., :3], torch.tensor([1.0, 0.0]).expand(*own.shape[:-1], 2)], dim=-1)
    second = torch.cat([own[..., 3:], torch.tensor([0.0, 0.0, 1.0]).expand(*own.shape[:-1], 3)], dim=-1)
    return torch.stack([first, second], dim=-2)


def draw_segment(batch: int, seed: int, steps: int = 1) -> Segment:
    generator = torch.Generator().manual_seed(seed)
    state = 3 * torch.randn(batch, steps + 1, 4, generator=generator) + 1
    return Segment(
        obs=observe(state),
        state=state,
        action=torch.zeros(batch, steps, 2, 2),
        reward=torch.zeros(batch, steps),
        terminated=torch.zeros(batch, steps, dtype=torch.bool),
        valid=torch.ones(batch, steps, dtype=torch.bool),
    )


def build(**changes: Any) -> StateDecoder:
    data = draw_segment(2000, seed=7)
    state_norm = RunningNormalizer(4, std_floor=1e-2)
    state_norm.update(data.state)
    obs_norm = RunningNormalizer(10, std_floor=1e-2)
    obs_norm.update(data.obs.flatten(2))
    return StateDecoder(dataclasses.replace(CONFIG, **changes), SPEC, state_norm, obs_norm)


def fit(decoder: StateDecoder, updates: int) -> float:
    """Train on fresh batches; return the mean absolute error on unseen states, in the environment's units."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=OPTIM.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for update in range(updates):
        optimizer.zero_grad()
        decoder(draw_segment(128, seed=update), GENERATOR).loss.backward()
        optimizer.step()
        schedule.step()
    decoder.eval()
    state = draw_segment(500, seed=10**6).state
    with torch.no_grad():
        error = decoder.decode(decoder._state_norm[0].normalize(state)) - observe(state)
    return float(error.abs().sum() / (5 * 500 * 2))


@pytest.mark.parametrize("target", ["raw", "normalized"])
@pytest.mark.parametrize("quantizer", ["fsq", "vq", "none"])
def test_padding_and_agent_ids_are_exact(quantizer: str, target: str) -> None:
    obs = build(quantizer=quantizer, target=target).decode(torch.randn(6, 3, 4))
    assert obs.shape == (6, 3, 2, 5)
    assert torch.equal(obs[..., 3:], torch.eye(2).expand(6, 3, 2, 2))
    assert torch.equal(obs[..., 1, 2], torch.zeros(6, 3))
    assert bool((obs[..., 0, :3] != 0).all())


def test_the_plain_mlp_learns_a_linear_map() -> None:
    assert fit(build(quantizer="none", hidden_dim=64), updates=600) < 0.2  # of a mean |value| of 19


@pytest.mark.parametrize(("quantizer", "bound"), [("fsq", 0.12), ("vq", 0.15)])
def test_a_quantised_code_still_carries_the_observation(quantizer: str, bound: float) -> None:
    untrained = fit(build(quantizer=quantizer, hidden_dim=64), updates=0)
    assert fit(build(quantizer=quantizer, hidden_dim=64, num_codes=64), updates=400) < bound * untrained


@pytest.mark.parametrize("loss", ["absolute", "squared"])
def test_loss_and_error_equal_a_computation_by_hand(loss: str) -> None:
    decoder, segment = build(loss=loss, target="raw"), draw_segment(8, seed=3)
    output = decoder(segment, GENERATOR)
    error = decoder.decode(decoder._state_norm[0].normalize(segment.state)) - segment.obs
    entries = torch.cat([error[..., 0, :3], error[..., 1, :2]], dim=-1)
    expected = entries.abs() if loss == "absolute" else entries.square()
    torch.testing.assert_close(output.loss, expected.mean())
    torch.testing.assert_close(output.metrics["decoder_error"], entries.abs().mean())


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "none"])
def test_only_real_states_count_and_the_last_one_does(quantizer: str) -> None:
    segment = draw_segment(4, seed=3, steps=3)
    valid = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    real = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    garbage = torch.where(real[..., None], segment.state, torch.full_like(segment.state, 1e4))
    padded = dataclasses.replace(segment, state=garbage, valid=valid)
    flat = Segment(
        obs=segment.obs[real].unflatten(0, (-1, 2)),
        state=segment.state[real].unflatten(0, (-1, 2)),
        action=torch.zeros(6, 1, 2, 2),
        reward=torch.zeros(6, 1),
        terminated=torch.zeros(6, 1, dtype=torch.bool),
        valid=torch.ones(6, 1, dtype=torch.bool),
    )
    first, second = build(quantizer=quantizer), build(quantizer=quantizer)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(padded, GENERATOR).loss, second(flat, GENERATOR).loss)
    for name, value in first.state_dict().items():  # the codebook has followed the same rows
        torch.testing.assert_close(value, second.state_dict()[name])


def test_decoding_leaves_the_codebook_as_it_is() -> None:
    decoder = build(quantizer="vq").train()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.decode(torch.randn(50, 4))
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    decoder(draw_segment(50, seed=1), GENERATOR)
    assert any(not torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "none"])
def test_every_parameter_gets_a_gradient(quantizer: str) -> None:
    decoder = build(quantizer=quantizer)
    decoder(draw_segment(64, seed=1), GENERATOR).loss.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_a_context_without_transitions_teaches_its_last_state() -> None:
    decoder, segment = build(), draw_segment(4, seed=1, steps=2)
    padded = dataclasses.replace(segment, valid=torch.zeros(4, 2, dtype=torch.bool))
    last = draw_segment(4, seed=1, steps=2).steps(1, 2)
    last = dataclasses.replace(last, state=last.state[:, [1, 1]], obs=last.obs[:, [1, 1]])
    torch.testing.assert_close(decoder(padded, GENERATOR).loss, decoder(last, GENERATOR).loss)


def test_normalisers_stay_with_their_owner() -> None:
    assert not any("norm" in name for name in build().state_dict())


def test_published_and_paper_sizes() -> None:
    """HalfCheetah-2x3: S = 17, two agents observing 19 numbers each (facts counted from the layer tables)."""
    spec = EnvSpec("hc", 2, 17, obs_sizes=(19, 19), action_sizes=(3, 3), episode_steps=1000)
    norms = RunningNormalizer(17, std_floor=1e-2), RunningNormalizer(38, std_floor=1e-2)

    def count(**changes: Any) -> int:
        decoder = StateDecoder(dataclasses.replace(CONFIG, **changes), spec, *norms)
        return sum(parameter.numel() for parameter in decoder.parameters())

    def layers(*sizes: int) -> int:
        return sum(a * b + b for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    assert count(hidden_dim=512) == layers(17, 512, 512, 36) + layers(36, 512, 512, 38)
    published = layers(17, 256, 256, 12 * 64) + layers(12 * 64, 256, 256, 38)
    assert count(quantizer="vq", hidden_dim=256, code_dim=64, num_codes=256) == published


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (8, 2)}, "DecoderConfig.levels = .8, 2.: expected one number of at least 3"),
        ({"num_layers": 1}, "DecoderConfig.num_layers = 1: expected at least 2"),
        ({"codebook_decay": 1.0}, "DecoderConfig.codebook_decay"),
        ({"quantizer": "lfq"}, "expected one of fsq, vq, none"),
    ],
)
def test_unusable_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_statistics_of_another_size_are_refused() -> None:
    norms = RunningNormalizer(4, std_floor=1e-2), RunningNormalizer(5, std_floor=1e-2)
    with pytest.raises(ValueError, match="obs_norm holds 5 entries, expected N.O = 10"):
        StateDecoder(CONFIG, SPEC, *norms)
