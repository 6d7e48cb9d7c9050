"""Which discrete action a vector of preferences plays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from envs.preferences import chosen


@st.composite
def choices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Preferences, some equal and some out of range, and what is available: at least one action an agent."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6)))
    preference = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0])))
    available = draw(hnp.arrays(np.bool_, shape))
    always = draw(hnp.arrays(np.int64, shape[:2], elements=st.integers(0, shape[2] - 1)))
    np.put_along_axis(available, always[..., None], True, axis=-1)
    return preference, available


@given(choices())
def test_it_is_the_first_of_the_largest_that_are_available(choice: tuple[np.ndarray, np.ndarray]) -> None:
    preference, available = choice
    for index in np.ndindex(preference.shape[:2]):
        best, best_value = None, -np.inf
        for action, value in enumerate(preference[index]):
            value = min(max(float(value), -1.0), 1.0)
            if available[index][action] and value > best_value:
                best, best_value = action, value
        assert chosen(preference, available)[index] == best


@given(choices())
def test_what_is_not_available_has_no_effect(choice: tuple[np.ndarray, np.ndarray]) -> None:
    preference, available = choice
    np.testing.assert_array_equal(
        chosen(np.where(available, preference, 1.0), available), chosen(preference, available)
    )


@given(choices(), st.floats(0.01, 1.0), st.floats(-0.5, 0.5))
def test_only_the_order_matters(choice: tuple[np.ndarray, np.ndarray], scale: float, shift: float) -> None:
    preference, available = choice
    inside = np.clip(preference, -1.0, 1.0).astype(np.float64) * 0.4
    moved = inside * scale + shift
    np.testing.assert_array_equal(chosen(moved, available), chosen(inside, available))


@given(choices())
def test_the_arguments_stay_as_they_are(choice: tuple[np.ndarray, np.ndarray]) -> None:
    preference, available = choice
    before = preference.copy(), available.copy()
    chosen(preference, available)
    np.testing.assert_array_equal(preference, before[0])
    np.testing.assert_array_equal(available, before[1])


@pytest.mark.parametrize("no_op", [0, 4])
def test_the_dead_do_nothing(no_op: int) -> None:
    available = np.zeros((2, 8), np.uint8)
    available[:, no_op] = 1
    preference = np.full((2, 8), 1.0, np.float32)
    preference[:, no_op] = -1.0
    np.testing.assert_array_equal(chosen(preference, available), [no_op, no_op])


@pytest.mark.parametrize(
    ("preference", "available", "problem"),
    [
        (np.zeros((2, 3)), np.ones((2, 4)), r"shape \[2, 3\]; expected \[2, 4\]"),
        (np.array([[0.0, np.nan]]), np.ones((1, 2)), "not a finite number"),
        (np.zeros((2, 2)), np.array([[1, 0], [0, 0]]), "no available action"),
    ],
)
def test_what_cannot_be_played_is_refused(preference: np.ndarray, available: np.ndarray, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        chosen(preference, available)
