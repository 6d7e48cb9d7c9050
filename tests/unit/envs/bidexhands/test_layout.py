"""Every number of state and observations is what and where the originals have it."""

from __future__ import annotations

import numpy as np
import pytest

from envs.bidexhands import BiDexHandsBatch
from tests.support.bidexhands import EVERY, FACTS, Scene, batch_of, random_actions
from tests.support.bidexhands_layout import assert_state, expected_state

pytestmark = pytest.mark.mujoco

TASK = pytest.mark.parametrize("task", EVERY)


@TASK
def test_the_first_state_shows_the_start_and_no_action(task: str) -> None:
    batch = batch_of(task)
    state = batch.reset([0], [5]).state[0]
    still = np.zeros((2, FACTS[task].action))
    assert_state(state, expected_state(Scene(batch), batch.goal([0])[0], still), 2e-6)


@TASK
def test_each_step_shows_positions_and_velocities_of_its_very_end(task: str) -> None:
    batch = batch_of(task)
    batch.reset([0], [5])
    scene, goal = Scene(batch), batch.goal([0])[0]
    for action in random_actions(task, 25, 1, seed=0, scale=1.5):
        result = batch.step([0], action)
        # Forces belong to the last physics step, whose beginning is gone by now; see the next test.
        assert_state(result.state[0], expected_state(scene, goal, action[0]), 3e-6, "forces")
        if result.terminated[0]:  # the bottle is lost
            break


@TASK
def test_forces_are_those_of_motors_and_of_the_last_links(task: str) -> None:
    batch = batch_of(task)
    batch.reset([0], [5])
    scene, goal = Scene(batch), batch.goal([0])[0]
    shown = np.zeros(0)
    for action in random_actions(task, 9, 1, seed=3):
        batch.step([0], action)
        batch.simulation.settle(0)  # all forces anew, of this very state
        shown = batch.observer.state(batch.readings([0]), batch.goal([0]), action)[0]
        assert_state(shown, expected_state(scene, goal, action[0]), 2e-5)
    assert (np.abs(shown[48:72]) > 0.01).sum() >= 15  # a motor's force is seen, not zeros
    assert (np.abs(shown[137:167]) > 0.01).sum() >= 10


@TASK
def test_an_agent_sees_its_own_hand_and_the_object(task: str) -> None:
    batch = batch_of(task)
    batch.reset([0], [5])
    fact = FACTS[task]
    hand = 187 if fact.action == 20 else 199
    for action in random_actions(task, 5, 1, seed=1):
        result = batch.step([0], action)
        state, (right, left) = result.state[0], result.obs[0]
        assert (state.size, right.size, left.size) == (fact.state, fact.obs, fact.obs)
        np.testing.assert_array_equal(right, np.concatenate([state[:hand], state[2 * hand :]]))
        np.testing.assert_array_equal(left, np.concatenate([state[hand : 2 * hand], state[2 * hand :]]))
        assert np.abs(state).max() <= 5.0


@pytest.mark.parametrize("task", ["over", "bottle-cap"])
def test_without_contact_channels_only_the_108_force_numbers_are_zero(task: str) -> None:
    shown, bare = batch_of(task), BiDexHandsBatch(task, contact_channels=False)
    hand = 187 if FACTS[task].action == 20 else 199
    forces = np.concatenate([np.r_[48:72, 137:167] + start for start in (0, hand)])
    assert len(forces) == 108
    shown.reset([0], [1])
    bare.reset([0], [1])
    for action in random_actions(task, 5, 1, seed=1):
        expected = shown.step([0], action).state[0].copy()
        assert np.abs(expected[forces]).max() > 0.1
        expected[forces] = 0.0
        np.testing.assert_array_equal(bare.step([0], action).state[0], expected)
