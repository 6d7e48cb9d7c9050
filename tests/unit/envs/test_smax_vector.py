"""A worker's battles as environments, on a battle that needs no JAX: episodes, what is hidden, who may do what."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from envs.base import EnvError
from envs.check import check_env
from envs.collector import Collector
from envs.hiding import Hide, hidden
from envs.random_agent import RandomAgent
from envs.smax_vector import SmaxVec
from envs.toy.skirmish import STOP
from tests.support.skirmish_served import preferences, rows_equal_singles, skirmish_config, start


@pytest.fixture(scope="module")
def vec() -> Iterator[SmaxVec]:
    vec = skirmish_config().build_vector(3)
    yield vec
    vec.close()


def test_the_spec_is_that_of_the_worlds(vec: SmaxVec) -> None:
    spec = vec.spec
    assert (spec.env_id, spec.num_agents, spec.state_dim, spec.episode_steps) == ("smax/skirmish", 3, 25, 25)
    assert (spec.obs_sizes, spec.action_sizes, spec.appends_agent_id) == ((25,) * 3, (7,) * 3, True)
    assert (vec.num_envs, spec.obs_dim) == (3, 28)


def test_nothing_is_found_wrong() -> None:
    assert check_env(skirmish_config()) == []


def test_rows_do_exactly_what_single_environments_do(vec: SmaxVec) -> None:
    single = skirmish_config().build_vector(1)
    assert rows_equal_singles(vec, single, 120) > 5
    single.close()


@pytest.mark.parametrize(
    ("hide", "expected"),
    [
        ("none", set()),
        ("types_and_health", {"ally", "enemy"}),
        ("enemy_types_and_health", {"enemy"}),
    ],
)
def test_what_is_hidden_is_zero_and_all_else_is_seen(hide: Hide, expected: set[str]) -> None:
    worker = start(1)
    names = worker.hello.obs_names
    is_hidden = hidden(names, hide)
    whose = {name.split("_")[0] for name, out in zip(names, is_hidden, strict=True) if out}
    assert whose == expected
    seen = _shown(SmaxVec(worker, "smax/skirmish", "none", 25))
    hiding = _shown(SmaxVec(worker, "smax/skirmish", hide, 25))
    worker.close()
    varies = seen[0].std(axis=(0, 1))[: len(names)] > 0
    assert varies.all()
    assert not hiding[0][..., : len(names)][..., is_hidden].any()
    shown = np.append(~is_hidden, np.ones(3, bool))
    np.testing.assert_array_equal(hiding[0][..., shown], seen[0][..., shown])
    np.testing.assert_array_equal(hiding[1], seen[1])  # the state holds everything


def _shown(vec: SmaxVec) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T,N,O] and states [T,S] of some episodes."""
    rng, obs, states = np.random.default_rng(0), [], []
    for seed in range(8):
        vec.reset([0], [seed])
        for _ in range(25):
            (result,) = vec.step([0], preferences(vec, rng, 1))
            obs.append(result.obs)
            states.append(result.state)
            if result.terminated or result.truncated:
                break
    return np.stack(obs), np.stack(states)


def test_time_runs_out_at_episode_steps() -> None:
    worker = start(1)
    vec, stand = SmaxVec(worker, "smax/skirmish", "none", episode_steps=4), np.zeros((1, 3, 7), np.float32)
    stand[..., STOP] = 1.0
    for seed in range(6):
        vec.reset([0], [seed])
        results = [vec.step([0], stand)[0] for _ in range(4)]
        assert [result.truncated for result in results] == [False, False, False, True]
        assert not any(result.terminated for result in results)
        with pytest.raises(EnvError, match=r"step\(\) of \[0\] before reset\(\), or after the end"):
            vec.step([0], stand)
    worker.close()


def test_the_dead_see_nothing_and_do_nothing(vec: SmaxVec) -> None:
    rng, has_died = np.random.default_rng(1), 0
    for seed in range(10):
        vec.reset([1], [seed])
        while True:
            (result,) = vec.step([1], preferences(vec, rng, 1))
            health = result.state.reshape(5, 5)[:3, 2]
            np.testing.assert_array_equal(result.obs[health == 0, :25], 0.0)
            np.testing.assert_array_equal(result.obs[:, 25:], np.eye(3))
            has_died += int((health == 0).any() and not result.terminated)
            assert result.info["won"] in (0.0, 1.0)
            assert not (result.info["won"] and not result.terminated)
            if result.terminated or result.truncated:
                break
    assert has_died > 0


@pytest.mark.parametrize(
    ("action", "problem"),
    [
        (np.full((1, 3, 7), np.nan, np.float32), "not a finite number"),
        (np.zeros((1, 3, 6), np.float32), r"shape \[1, 3, 6\]; expected \[1, 3, 7\]"),
    ],
)
def test_what_are_no_preferences_is_refused(vec: SmaxVec, action: np.ndarray, problem: str) -> None:
    vec.reset([2], [0])
    with pytest.raises(EnvError, match=problem):
        vec.step([2], action)


def test_a_row_named_twice_is_refused(vec: SmaxVec) -> None:
    with pytest.raises(EnvError, match="expected each at most once"):
        vec.reset([0, 0], [1, 2])


def test_it_is_collected_from() -> None:
    collector = Collector(skirmish_config(), num_envs=3, seed=0)
    agent = RandomAgent(collector.spec, torch.Generator().manual_seed(0))
    collected = collector.collect(agent, num_episodes=6)
    assert sum(bool(part.terminated[-1] | part.truncated[-1]) for part in collected) == len(collector.episodes) == 6
    collector.close()
