"""Correlated noise: its spread and its memory are those asked for, and every episode begins anew."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envs.ou_agent import OrnsteinUhlenbeckAgent
from worldmodel.types import EnvSpec

SPEC = EnvSpec("test/made-up", 3, 2, (2, 2, 2), (2, 1, 2), 100)
ROWS = 500


def make(std: float = 0.05, time_steps: float = 4.0, seed: int = 0) -> OrnsteinUhlenbeckAgent:
    generator = torch.Generator().manual_seed(seed)
    return OrnsteinUhlenbeckAgent(SPEC, std=std, time_steps=time_steps, generator=generator)


def play(agent: OrnsteinUhlenbeckAgent, steps: int, rows: int = ROWS, restart_at: int | None = None) -> Tensor:
    """[T,B,N,A] actions; in every second row an episode begins at step `restart_at`."""
    obs, state = torch.zeros(rows, 3, 2), torch.zeros(rows, 2)
    carry = agent.begin(obs, state)
    actions = []
    for step in range(steps):
        is_first = torch.full((rows,), step == 0)
        if step == restart_at:
            is_first[::2] = True
        action, carry = agent.act(carry, obs, state, is_first)
        actions.append(action)
    return torch.stack(actions)


def real(actions: Tensor) -> Tensor:
    """[T,B,5] without padding."""
    return actions[..., SPEC.action_mask()]


@pytest.mark.parametrize("time_steps", [0.5, 2.0, 20.0])
def test_the_noise_is_stationary_with_the_asked_memory(time_steps: float) -> None:
    """2 500 independent processes of 40 steps, so small that nothing is clipped."""
    noise = real(play(make(time_steps=time_steps), 40)).double()
    for step in (0, 1, 10, 39):  # from the first step on
        assert noise[step].std() == pytest.approx(0.05, rel=0.05)
        assert abs(noise[step].mean()) < 4 * 0.05 / math.sqrt(2500)
    for lag in (1, 2, 5):
        measured = (noise[lag:] * noise[:-lag]).mean() / noise.square().mean()
        assert measured == pytest.approx(math.exp(-lag / time_steps), abs=0.03)


def test_large_noise_is_clipped() -> None:
    actions = real(play(make(std=1.0), 40))
    assert actions.abs().max() == 1
    beyond = math.erfc(1 / math.sqrt(2))  # the share of a standard normal beyond one standard deviation
    assert (actions.abs() == 1).double().mean() == pytest.approx(beyond, abs=0.02)


def test_clipping_does_not_touch_the_memory() -> None:
    """An action that was clipped comes back from where the noise is, not from the edge."""
    std, small = 1.0, 0.01
    clipped, scaled = play(make(std=std), 20), play(make(std=small), 20)
    torch.testing.assert_close(clipped, (scaled * (std / small)).clamp(-1, 1))


def test_episodes_begin_anew_without_disturbing_others() -> None:
    undisturbed, restarted = play(make(), 12), play(make(), 12, restart_at=6)
    assert torch.equal(restarted[:, 1::2], undisturbed[:, 1::2])
    assert torch.equal(restarted[:6], undisturbed[:6])
    before, after = real(restarted)[5, ::2].flatten(), real(restarted)[6, ::2].flatten()
    together = float(torch.corrcoef(torch.stack([before, after]))[0, 1])
    assert abs(together) < 4 / math.sqrt(len(before)), "an episode remembers the one before it"
    assert after.std() == pytest.approx(0.05, rel=0.1)


def test_rows_and_agents_and_dimensions_are_independent() -> None:
    noise = real(play(make(), 1, rows=4000))[0].T  # [5,B]
    off_diagonal = torch.corrcoef(noise) - torch.eye(5)
    assert off_diagonal.abs().max() < 4.5 / math.sqrt(4000)
    neighbours = torch.corrcoef(torch.stack([noise[:, ::2].flatten(), noise[:, 1::2].flatten()]))[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(10000)


def test_padding_stays_zero() -> None:
    actions = play(make(std=1.0), 5)
    assert torch.all(actions[..., ~SPEC.action_mask()] == 0)
    assert torch.all(actions[..., SPEC.action_mask()] != 0)


def test_the_generator_decides() -> None:
    assert torch.equal(play(make(seed=3), 5), play(make(seed=3), 5))
    assert not torch.equal(play(make(seed=3), 5), play(make(seed=4), 5))


@pytest.mark.parametrize(("std", "time_steps"), [(-0.1, 2.0), (0.1, 0.0), (0.1, -1.0)])
def test_impossible_noise_is_refused(std: float, time_steps: float) -> None:
    with pytest.raises(ValueError, match="expected std >= 0 and time_steps > 0"):
        make(std, time_steps)
