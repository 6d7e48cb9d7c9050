"""How observations are padded, given an agent id, and made from the state."""

from __future__ import annotations

import numpy as np
import pytest

from envs.observation import FullObservation, LocalObservation


def test_local_observations_are_padded_with_zeros_and_end_with_the_agent_id() -> None:
    build = LocalObservation((1, 3))
    obs = build([np.array([5.0]), np.array([1.0, 2.0, 3.0])], np.zeros(7, np.float32))
    assert obs.dtype == np.float32
    np.testing.assert_array_equal(obs, [[5, 0, 0, 1, 0], [1, 2, 3, 0, 1]])


def test_local_observations_of_two_steps_do_not_share_memory() -> None:
    build = LocalObservation((1, 1))
    first = build([np.array([1.0]), np.array([2.0])], np.zeros(1, np.float32))
    build([np.array([3.0]), np.array([4.0])], np.zeros(1, np.float32))
    np.testing.assert_array_equal(first[:, 0], [1, 2])


def test_the_full_observation_is_state_and_agent_id() -> None:
    state = np.array([0.5, -2.0, 3.0], np.float32)
    build = FullObservation(3, 2, standardize=False)
    np.testing.assert_array_equal(build([], state), [[0.5, -2, 3, 1, 0], [0.5, -2, 3, 0, 1]])
    assert (build.sizes, build.appends_agent_id) == ((3, 3), True)


def test_standardising_treats_state_and_id_as_one_vector_as_the_published_code() -> None:
    state = np.array([0.5, -2.0, 3.0], np.float32)
    build = FullObservation(3, 2, standardize=True)
    for agent, row in enumerate(build([], state)):
        vector = [*state, *np.eye(2)[agent]]
        mean = sum(vector) / 5
        std = (sum((x - mean) ** 2 for x in vector) / 5) ** 0.5
        assert row == pytest.approx([(x - mean) / std for x in vector], abs=1e-6)
    # The id is no longer a one-hot, so the spec must not promise one.
    assert (build.sizes, build.appends_agent_id) == ((5, 5), False)


def test_a_constant_vector_is_standardised_to_zeros() -> None:
    np.testing.assert_array_equal(FullObservation(2, 1, standardize=True)([], np.ones(2, np.float32)), np.zeros((1, 3)))
