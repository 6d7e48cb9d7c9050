"""The toy systems follow the laws that they publish."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.base import EnvError
from envs.toy.bimodal import BimodalConfig, BimodalSystem
from envs.toy.counter import CounterConfig
from envs.toy.linear import LinearSystem
from tests.support.toy_systems import linear_config
from worldmodel.config import ConfigError


def bimodal(**changes: Any) -> BimodalConfig:
    values = {
        "num_agents": 3,
        "state_dim": 2,
        "obs_size": 1,
        "memory": 0.7,
        "gain": 0.3,
        "jump": 0.5,
        "probability": 0.7,
        "noise_std": 0.05,
        "terminate_beyond": None,
        "episode_steps": 20,
    }
    return BimodalConfig(**(values | changes))


def draw_next(system: Any, state: np.ndarray, action: np.ndarray, number: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([system.next_state(state, action, generator) for _ in range(number)])


def test_linear_next_states_have_the_published_mean_and_covariance() -> None:
    system = LinearSystem(linear_config())
    state, action = np.array([1.0, -2.0, 0.5, 3.0]), np.random.default_rng(1).uniform(-1, 1, (3, 2))
    drawn = draw_next(system, state, action, 20_000)
    # Five standard errors: 0.2 / sqrt(20000) for the mean, 0.04 * sqrt(2 / 20000) for a variance.
    np.testing.assert_allclose(drawn.mean(0), system.predictive_mean(state, action), atol=5 * 0.0014)
    np.testing.assert_allclose(np.cov(drawn.T), system.predictive_covariance(), atol=5 * 0.0004)


def test_linear_gain_is_how_far_an_action_moves_the_mean() -> None:
    system = LinearSystem(linear_config())
    state, zero = np.ones(4), np.zeros((3, 2))
    for agent in range(3):
        for index in range(2):
            pushed = zero.copy()
            pushed[agent, index] = 1.0
            moved = system.predictive_mean(state, pushed) - system.predictive_mean(state, zero)
            np.testing.assert_allclose(system.action_gain(agent)[:, index], moved)
            assert np.linalg.norm(moved) == pytest.approx(0.5)


def test_linear_mean_takes_batches() -> None:
    system = LinearSystem(linear_config())
    states, actions = np.random.default_rng(0).normal(size=(5, 4)), np.random.default_rng(1).normal(size=(5, 3, 2))
    one_by_one = [system.predictive_mean(state, action) for state, action in zip(states, actions, strict=True)]
    np.testing.assert_allclose(system.predictive_mean(states, actions), one_by_one)


def test_linear_without_noise_follows_its_formula_step_by_step() -> None:
    config = linear_config(noise_std=0.0)
    env, system = config.build(), LinearSystem(config)
    state = env.reset(3).state
    for seed in range(5):
        action = np.random.default_rng(seed).uniform(-1, 1, (3, 2)).astype(np.float32)
        result = env.step(action)
        expected = system.predictive_mean(state.astype(np.float64), action.astype(np.float64))
        np.testing.assert_array_equal(result.state, expected.astype(np.float32))
        assert result.reward == pytest.approx(-np.mean(result.state**2) - 0.1 * np.mean(action**2), rel=1e-5)
        state = result.state


def test_linear_agents_see_their_own_window_only() -> None:
    env = linear_config(num_agents=2).build()
    observed = env.reset(0)
    np.testing.assert_array_equal(observed.obs[:, :2], observed.state[[[0, 1], [2, 3]]])
    np.testing.assert_array_equal(observed.obs[:, 2:], np.eye(2))


def test_another_system_seed_is_another_system_and_the_same_is_the_same() -> None:
    gains = [LinearSystem(linear_config(system_seed=seed)).action_gain(0) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(gains[0], gains[1])
    assert not np.allclose(gains[0], gains[2])


def test_bimodal_next_states_follow_the_published_mixture() -> None:
    system = BimodalSystem(bimodal())
    state, action = np.array([1.0, -0.5]), np.array([[0.2], [-0.6], [0.9]])
    law = system.mixture(state, action)
    drawn = draw_next(system, state, action, 10_000)
    distance = np.linalg.norm(drawn[None] - law.mean[:, None], axis=-1)  # [2, M]
    mode = distance.argmin(0)
    assert np.mean(mode == 0) == pytest.approx(0.7, abs=0.025)
    for index in (0, 1):
        inside = drawn[mode == index]
        np.testing.assert_allclose(inside.mean(0), law.mean[index], atol=0.01)
        np.testing.assert_allclose(inside.std(0), law.std, atol=0.005)
    # Agents 0 and 2 push coordinate 0, agent 1 pushes coordinate 1; the modes lie `jump` to either side.
    np.testing.assert_allclose(law.mean.mean(0), [0.7 + 0.3 * (0.2 + 0.9), -0.35 + 0.3 * -0.6])
    np.testing.assert_allclose(law.mean[0] - law.mean[1], 1.0)


@pytest.mark.parametrize("config", [linear_config(), bimodal()])
def test_an_episode_is_a_function_of_seed_and_actions(config: Any) -> None:
    first, second = config.build(), config.build()
    second.reset(1)
    action = np.full((first.spec.num_agents, first.spec.action_dim), 0.3, np.float32)
    second.step(action)
    episodes = []
    for env in (first, second):
        states = [env.reset(5).state] + [env.step(action).state for _ in range(10)]
        episodes.append(np.stack(states))
    np.testing.assert_array_equal(*episodes)
    assert not np.allclose(first.reset(6).state, episodes[0][0])


@pytest.mark.parametrize("config", [linear_config(), bimodal()])
def test_episodes_are_truncated_at_their_limit(config: Any) -> None:
    env = config.build()
    env.reset(0)
    ends = [env.step(np.zeros((3, env.spec.action_dim), np.float32))[3:5] for _ in range(20)]
    assert ends == [(False, False)] * 19 + [(False, True)]
    with pytest.raises(EnvError, match="after the episode's end"):
        env.step(np.zeros((3, 2), np.float32))


@pytest.mark.parametrize("config", [linear_config(terminate_beyond=1.5), bimodal(terminate_beyond=1.5)])
def test_termination_is_optional_and_follows_the_state(config: Any) -> None:
    env = config.build()
    ended = 0
    for seed in range(10):
        env.reset(seed)
        terminated = truncated = False
        while not (terminated or truncated):
            result = env.step(np.zeros((3, env.spec.action_dim), np.float32))
            terminated, truncated = result.terminated, result.truncated
            assert terminated == (np.linalg.norm(result.state.astype(np.float64)) > 1.5)
        ended += terminated
    assert ended > 0


def test_the_counter_tells_seed_step_and_action() -> None:
    env = CounterConfig(num_agents=2, shortest_episode=3, episode_steps=7).build()
    seed = 5 * 2**16 + 12
    np.testing.assert_array_equal(env.reset(seed).state, [5, 12, 0, 0])
    result = env.step(np.array([[0.5, 9.0], [0.25, -1.0]], np.float32))  # agent 0 has one action: 9 is padding
    np.testing.assert_array_equal(result.state, [5, 12, 1, -0.25])
    np.testing.assert_array_equal(result.obs, [[1, 0, 1, 0], [1, 1, 0, 1]])


@pytest.mark.parametrize(("seed", "length", "terminates"), [(0, 3, True), (2, 4, True), (8, 7, True), (3, 7, False)])
def test_the_counter_ends_when_its_seed_says(seed: int, length: int, terminates: bool) -> None:
    env = CounterConfig(num_agents=1, shortest_episode=3, episode_steps=7).build()
    env.reset(seed)
    results = [env.step(np.zeros((1, 1), np.float32)) for _ in range(length)]
    assert [result.reward for result in results] == list(range(1, length + 1))
    assert [(result.terminated, result.truncated) for result in results[:-1]] == [(False, False)] * (length - 1)
    assert (results[-1].terminated, results[-1].truncated) == (terminates, not terminates)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (linear_config, {"memory": 1.0}, "memory = 1.0: expected at least 0 and below 1"),
        (linear_config, {"obs_size": 5}, "obs_size = 5: expected 1 to state_dim = 4"),
        (bimodal, {"jump": 0.1}, "the modes overlap"),
        (bimodal, {"probability": 1.0}, "probability = 1.0"),
    ],
)
def test_systems_that_make_no_sense_are_refused(make: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
