"""The PettingZoo environment keeps PettingZoo's contract, and the tasks have the originals' sizes."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
from gymnasium.spaces import Box
from pettingzoo.test import parallel_api_test, parallel_seed_test

from envs.bidexhands import TASKS, parallel_env
from envs.bidexhands.pettingzoo_env import AGENTS
from tests.support.bidexhands import EVERY, FACTS

pytestmark = pytest.mark.mujoco

TASK = pytest.mark.parametrize("task", EVERY)


def test_the_tasks_are_these() -> None:
    assert list(TASKS) == EVERY
    assert all(task.original.startswith("ShadowHand") for task in TASKS.values())


@TASK
def test_pettingzoos_own_test_of_the_interface(task: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(parallel_env(task, physics="fast"), num_cycles=40)


@pytest.mark.slow
@TASK
def test_pettingzoos_own_test_of_the_interface_over_many_episodes(task: str) -> None:
    parallel_api_test(parallel_env(task), num_cycles=600)


@TASK
def test_pettingzoos_own_test_of_seeds(task: str) -> None:
    parallel_seed_test(lambda: parallel_env(task, physics="fast"), num_cycles=5)


@TASK
def test_sizes_are_the_originals(task: str) -> None:
    env, fact = parallel_env(task), FACTS[task]
    assert env.possible_agents == ["right_hand", "left_hand"]
    assert env.state_space == Box(-5.0, 5.0, (fact.state,), np.float32)
    for agent in env.possible_agents:
        assert env.observation_space(agent) == Box(-5.0, 5.0, (fact.obs,), np.float32)
        assert env.action_space(agent) == Box(-1.0, 1.0, (fact.action,), np.float32)
    assert TASKS[task].episode_steps == fact.episode_steps
    assert env.metadata["name"] == f"bidexhands-mujoco/{task}"


@TASK
def test_what_both_hands_get(task: str) -> None:
    env = parallel_env(task, physics="fast")
    observations, infos = env.reset(seed=1)
    assert observations.keys() == infos.keys() == set(AGENTS)
    rng = np.random.default_rng(0)
    actions = {agent: rng.uniform(-1, 1, FACTS[task].action).astype(np.float32) for agent in AGENTS}
    observations, rewards, terminations, truncations, infos = env.step(actions)
    state = env.state()
    assert state.dtype == np.float32
    for agent in AGENTS:
        assert env.observation_space(agent).contains(observations[agent])
        assert env.state_space.contains(state)
        assert rewards[agent] == rewards[AGENTS[0]]
        assert (terminations[agent], truncations[agent]) == (False, False)
        assert infos[agent] == infos[AGENTS[0]]
        assert infos[agent]["success"] is False
    terms = {name: value for name, value in infos[AGENTS[0]].items() if name != "success"}
    assert all(isinstance(value, float) for value in terms.values())
    if task not in ("over", "catch-underarm", "catch-abreast"):  # whose terms are the exponent's
        offset = 0.0 if task == "pen" else 2.0
        assert rewards[AGENTS[0]] == pytest.approx(offset + sum(terms.values()))


def test_the_function_stays_a_function_once_its_module_is_loaded() -> None:
    """A module of the same name would take its place in the package."""
    package = importlib.import_module("envs.bidexhands")
    for task in ("over", "pen"):
        assert package.parallel_env(task).metadata["name"] == f"bidexhands-mujoco/{task}"
    importlib.import_module("envs.bidexhands.config")
    assert package.parallel_env is parallel_env


def test_a_reset_without_a_seed_goes_on_from_the_last_one() -> None:
    env, twin = parallel_env("over"), parallel_env("over")
    env.reset(seed=4)
    twin.reset(seed=4)
    first = [env.reset()[0]["right_hand"], env.reset()[0]["right_hand"]]
    second = [twin.reset()[0]["right_hand"], twin.reset()[0]["right_hand"]]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_the_state_that_was_given_stays_as_it_is() -> None:
    env = parallel_env("over")
    env.reset(seed=0)
    given = env.state()
    kept = given.copy()
    env.step({agent: np.ones(20, np.float32) for agent in AGENTS})
    np.testing.assert_array_equal(given, kept)
    given[:] = 0.0
    assert env.state().any()
