"""The records check what comes in at the border, and name what is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec, Segment, Trajectory

SPEC = EnvSpec("test", 2, 4, (3, 1), (2, 1), 10, appends_agent_id=True)


def _trajectory(**changes: Any) -> Trajectory:
    steps = 5
    good = Trajectory(
        obs=torch.zeros(steps + 1, SPEC.num_agents, SPEC.obs_dim),
        state=torch.zeros(steps + 1, SPEC.state_dim),
        action=torch.zeros(steps, SPEC.num_agents, SPEC.action_dim),
        reward=torch.zeros(steps),
        terminated=torch.zeros(steps, dtype=torch.bool),
        truncated=torch.zeros(steps, dtype=torch.bool),
    )
    return dataclasses.replace(good, **changes)


def test_a_good_trajectory_passes() -> None:
    trajectory = _trajectory()
    assert trajectory.validate(SPEC) is trajectory


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"obs": torch.zeros(5, 2, 5)}, ValueError, "Trajectory.obs has shape"),
        ({"state": torch.zeros(6, 3)}, ValueError, "axis S is 3, not 4"),
        ({"state": torch.zeros(6, 4, dtype=torch.float64)}, ValueError, "state has dtype torch.float64"),
        ({"terminated": torch.zeros(5)}, ValueError, "terminated has dtype torch.float32, expected torch.bool"),
        ({"action": torch.full((5, 2, 2), 5.0)}, ValueError, "reaches 5 in magnitude"),
        ({"reward": torch.tensor([0.0, 0.0, float("nan"), 0.0, 0.0])}, FloatingPointError, r"reward\[2\] is nan"),
        ({"terminated": torch.tensor([False, True, False, False, False])}, ValueError, "ends before its last step"),
    ],
)
def test_a_bad_trajectory_is_refused_by_name(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _trajectory(**changes).validate(SPEC)


def test_masks_of_unequal_agents() -> None:
    assert SPEC.obs_dim == 5
    assert SPEC.obs_mask().tolist() == [[True, True, True, True, True], [True, False, False, True, True]]
    assert SPEC.own_obs_mask().tolist() == [[True, True, True, False, False], [True, False, False, False, False]]
    assert SPEC.known_obs().tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert SPEC.action_mask().tolist() == [[True, True], [True, False]]


def test_sizes_that_disagree_with_the_number_of_agents_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 sizes"):
        EnvSpec("test", 2, 4, (3,), (2, 1), 10)


@settings(max_examples=50, deadline=None)
@given(left=st.integers(0, 4), right=st.integers(0, 4), real=st.integers(0, 4))
def test_state_valid_marks_both_ends_of_every_real_transition(left: int, right: int, real: int) -> None:
    length = left + real + right
    valid = torch.tensor([[False] * left + [True] * real + [False] * right], dtype=torch.bool).reshape(1, length)
    zeros = torch.zeros
    segment = Segment(
        obs=zeros(1, length + 1, 1, 1),
        state=zeros(1, length + 1, 1),
        action=zeros(1, length, 1, 1),
        reward=zeros(1, length),
        terminated=valid,
        valid=valid,
    )
    expected = [any((t < length and valid[0, t], t > 0 and valid[0, t - 1])) for t in range(length + 1)]
    if not valid.any():
        expected[-1] = True
    assert segment.state_valid()[0].tolist() == expected


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=2), wrong=st.integers(0, 1))
def test_check_shape_names_the_axis(sizes: list[int], wrong: int) -> None:
    tensor = torch.zeros(sizes[0], sizes[1] + 1)
    assert check_shape("x", tensor, "B T+1") == {"B": sizes[0], "T": sizes[1]}
    letter = ("B", "T")[wrong]
    with pytest.raises(ValueError, match=f"axis {letter}"):
        check_shape("x", tensor, "B T+1", **{letter: sizes[wrong] + 1})
