"""What becomes of the actions for several inferred states."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imagination.belief import Belief, Combine
from worldmodel.inference.given import Oracle
from worldmodel.types import EnvSpec

ORACLE = Oracle(EnvSpec("test", 2, 3, (2, 2), (2, 2), 20))


def actions(num_samples: int, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """[M,B,N,A] for 3 rows and 2 agents."""
    g = torch.Generator().manual_seed(seed)
    return 0.5 + spread * torch.randn(num_samples, 3, 2, 2, generator=g)


def test_a_draw_is_acted_on_as_it_is() -> None:
    drawn = actions(1)
    assert torch.equal(Belief(ORACLE).choose(drawn), drawn[0].clamp(-1, 1))


@given(st.integers(2, 40), st.integers(0, 100), st.sampled_from([1.0, 1e-3]))
def test_means_and_votes_are_those_of_a_loop(num_samples: int, seed: int, spread: float) -> None:
    """Votes: the medoid, the action with the smallest sum of distances to the others."""
    drawn = actions(num_samples, seed, spread)
    mean = Belief(ORACLE, "mean", num_samples).choose(drawn)
    votes = Belief(ORACLE, "votes", num_samples).choose(drawn)
    for row in range(3):
        for agent in range(2):
            own = drawn[:, row, agent].double().clamp(-1, 1)
            torch.testing.assert_close(mean[row, agent].double(), sum(own) / num_samples, rtol=1e-5, atol=1e-6)
            sums = [sum(float((one - other).norm()) for other in own) for one in own]
            winner = (own - votes[row, agent]).norm(dim=1).argmin()
            assert torch.equal(own[winner], votes[row, agent].double()), "the winner is one of the actions"
            assert sums[winner] <= min(sums) * (1 + 1e-5)


def test_the_larger_crowd_wins_where_a_mean_would_fall_between() -> None:
    drawn = torch.tensor([0.9, -0.8, 0.8, 1.0, -0.8]).view(5, 1, 1, 1)
    assert Belief(ORACLE, "votes", 5).choose(drawn).item() == pytest.approx(0.8)
    assert Belief(ORACLE, "mean", 5).choose(drawn).item() == pytest.approx(0.22)


def test_the_first_of_equals_wins_whatever_the_last_bits_are() -> None:
    """Of an even number of one-dimensional actions the two in the middle lie equally near to the others."""
    g = torch.Generator().manual_seed(0)
    drawn = torch.rand(8, 200, 2, 1, generator=g) * 2 - 1
    index = drawn.argsort(dim=0)[3:5].amin(dim=0)
    votes = Belief(ORACLE, "votes", 8)
    for rounded in (drawn, drawn * (1 + 1e-7), drawn - 1e-7):
        assert torch.equal(votes.choose(rounded), rounded.gather(0, index[None])[0])


def test_actions_beyond_the_bounds_count_as_what_they_become() -> None:
    """Three of five become (1, 1) and win, however far apart they were: unclamped, (0.5, 0.5) is nearest to all."""
    drawn = torch.tensor([[5.0, 1.0], [1.0, 5.0], [5.0, 5.0], [0.5, 0.5], [0.5, 0.4]]).view(5, 1, 1, 2)
    assert Belief(ORACLE, "votes", 5).choose(drawn).flatten().tolist() == [1.0, 1.0]
    assert Belief(ORACLE, "mean", 5).choose(drawn).flatten().tolist() == pytest.approx([0.8, 0.78])


@pytest.mark.parametrize(
    ("combine", "num_samples", "expected"),
    [("draw", 2, "1 with combine=draw"), ("draw", 0, "1 with"), ("mean", 1, "at least 2"), ("votes", 0, "at least 2")],
)
def test_numbers_of_samples_without_sense_are_refused(combine: Combine, num_samples: int, expected: str) -> None:
    with pytest.raises(ValueError, match=f"samples = {num_samples}: expected {expected}"):
        Belief(ORACLE, combine, num_samples)
