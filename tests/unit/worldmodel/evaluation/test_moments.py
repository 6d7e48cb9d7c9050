"""Moments are spread over episodes and steps, and histories are those that an agent would remember."""

from __future__ import annotations

import pytest
import torch

from worldmodel.evaluation.moments import Moments, all_moments, draw_moments
from worldmodel.history import begin_history, extend_history
from worldmodel.types import Trajectory


def episode(length: int, number: int = 0, agents: int = 2) -> Trajectory:
    """Observations and states count: 100 * episode + step."""
    count = 100.0 * number + torch.arange(length + 1.0)
    return Trajectory(
        obs=count[:, None, None].expand(-1, agents, 3).contiguous(),
        state=count[:, None].expand(-1, 2).contiguous(),
        action=torch.zeros(length, agents, 1),
        reward=torch.zeros(length),
        terminated=torch.zeros(length, dtype=torch.bool),
        truncated=torch.arange(length) == length - 1,
    )


def drawn(count: int, lengths: tuple[int, ...] = (10, 30, 20), seed: int = 0) -> Moments:
    episodes = [episode(length, number) for number, length in enumerate(lengths)]
    return draw_moments(episodes, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 7, 30, 59, 60])
def test_moments_differ_and_lie_within_their_episodes(count: int) -> None:
    moments = drawn(count)
    assert moments.num_moments == count
    pairs = list(zip(moments.episode.tolist(), moments.step.tolist(), strict=True))
    assert len(set(pairs)) == count
    assert all(0 <= step < (10, 30, 20)[number] for number, step in pairs)
    expected = [100.0 * number + step for number, step in pairs]
    assert moments.state[:, 0].tolist() == expected


def test_they_are_spread_over_episodes_and_steps() -> None:
    moments = drawn(30)
    assert torch.bincount(moments.episode).tolist() == [5, 15, 10]
    long = moments.step[moments.episode == 1]
    assert torch.bincount(long // 10).tolist() == [5, 5, 5]
    assert len({number % 2 for number in long.tolist()}) == 2, "only every other step is ever drawn"


def test_the_seed_decides() -> None:
    assert drawn(20).step.tolist() == drawn(20).step.tolist()
    assert drawn(20).step.tolist() != drawn(20, seed=1).step.tolist()


@pytest.mark.parametrize("history_steps", [0, 1, 3])
def test_a_history_is_what_an_agent_remembers(history_steps: int) -> None:
    trajectory = episode(6)
    moments = Moments.at([trajectory], torch.zeros(6, dtype=torch.int64), torch.arange(6))
    remembered = begin_history(trajectory.obs[:1], history_steps)
    for step in range(6):
        if step > 0:
            remembered = extend_history(remembered, trajectory.obs[step : step + 1], torch.tensor([False]))
        torch.testing.assert_close(moments.history(history_steps)[step], remembered[0])


def test_all_moments_or_evenly_spaced_ones() -> None:
    episodes = [episode(10), episode(30, 1)]
    assert all_moments(episodes, 100).num_moments == 40
    fewer = all_moments(episodes, 20)
    assert torch.bincount(fewer.episode).tolist() == [5, 15]
    assert fewer.step[:5].tolist() == [0, 2, 4, 6, 8]


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 60 moments; ask for at most 60 states"):
        drawn(61)
    with pytest.raises(ValueError, match="num_moments = 0"):
        drawn(0)
    with pytest.raises(ValueError, match="no trajectories"):
        draw_moments([], 1, torch.Generator())
