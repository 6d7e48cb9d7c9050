"""SMAX itself behind the adapter, under the Python that DIMA_SMAX_PYTHON names: `3m`, and the names of all maps."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.base import EnvError
from envs.check import check_env
from envs.hiding import hidden
from envs.smax import PYTHON_VARIABLE
from envs.smax_vector import SmaxVec
from tests.support.processes import is_alive, wait_until
from tests.support.skirmish_served import preferences, rows_equal_singles, same, smax_config

pytestmark = pytest.mark.smax

CONFIGS = Path(__file__).parents[3] / "configs" / "env" / "smax"
ALLIES, UNITS, STOP = 3, 6, 4
UNIT, OWN, TYPES = 13, 10, 6
"""Entries of another unit, of an agent itself and of a unit in the state, and kinds of units; see docs/smac.md."""


@pytest.fixture(scope="module")
def vec() -> Iterator[SmaxVec]:
    vec = smax_config().build_vector(4)
    yield vec
    vec.close()


@pytest.fixture(scope="module")
def seeing(vec: SmaxVec) -> SmaxVec:
    """The same worlds, with nothing hidden."""
    return SmaxVec(vec.worker, "smax/3m-nothing-hidden", "none", 100)


def test_the_spec_is_that_of_the_map(vec: SmaxVec) -> None:
    spec = vec.spec
    assert (spec.env_id, spec.num_agents, spec.episode_steps, vec.num_envs) == ("smax/3m", ALLIES, 100, 4)
    assert spec.obs_sizes == (UNIT * (UNITS - 1) + OWN,) * ALLIES
    assert spec.state_dim == (OWN + 2) * UNITS
    assert spec.action_sizes == (STOP + 1 + 3,) * ALLIES
    assert {"jax", "jaxlib", "jaxmarl"} <= dict(spec.versions).keys()


def test_nothing_is_found_wrong() -> None:
    assert check_env(smax_config()) == []


def test_rows_do_exactly_what_single_environments_do(vec: SmaxVec) -> None:
    single = smax_config().build_vector(1)
    assert rows_equal_singles(vec, single, 150) > 3
    single.close()


def test_types_and_health_are_hidden_and_all_else_is_seen(vec: SmaxVec, seeing: SmaxVec) -> None:
    is_hidden = hidden(vec.worker.hello.obs_names, "types_and_health")
    others = np.zeros((UNITS - 1, UNIT), bool)  # by SMAX's source: health first, the kind's bits last
    others[:, 0] = others[:, UNIT - TYPES :] = True
    np.testing.assert_array_equal(is_hidden, np.append(others, np.zeros(OWN, bool)))
    seen, hiding = _played(seeing), _played(vec)
    assert seen[0][..., : len(is_hidden)][..., is_hidden].any()
    assert not hiding[0][..., : len(is_hidden)][..., is_hidden].any()
    shown = np.append(~is_hidden, np.ones(ALLIES, bool))
    np.testing.assert_array_equal(hiding[0][..., shown], seen[0][..., shown])
    np.testing.assert_array_equal(hiding[1], seen[1])


def test_the_state_holds_what_is_hidden(seeing: SmaxVec) -> None:
    """Every unit that an agent sees has the health and the kind that the state tells of it."""
    obs, states = _played(seeing)
    compared, health = 0, set()
    for by_agent, state in zip(obs, states, strict=True):
        units = state[: OWN * UNITS].reshape(UNITS, OWN)
        for agent in range(ALLIES):
            rows = by_agent[agent][: UNIT * (UNITS - 1)].reshape(UNITS - 1, UNIT)
            for row, unit in zip(rows, [unit for unit in range(UNITS) if unit != agent], strict=True):
                if row.any():
                    assert row[0] == units[unit, 0]
                    np.testing.assert_array_equal(row[UNIT - TYPES :], units[unit, OWN - TYPES :])
                    compared, health = compared + 1, health | {float(row[0])}
    assert compared > 100
    assert len(health) > 3


def _played(vec: SmaxVec) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T,N,O] and states [T,S] of whole episodes in row 0."""
    rng, obs, states = np.random.default_rng(0), [], []
    for seed in range(4):
        ((first_obs, first_state),) = vec.reset([0], [seed])
        obs.append(first_obs)
        states.append(first_state)
        while True:
            (result,) = vec.step([0], preferences(vec, rng, 1))
            obs.append(result.obs)
            states.append(result.state)
            if result.terminated or result.truncated:
                break
    return np.stack(obs), np.stack(states)


def test_a_lost_battle_terminates_and_the_dead_see_nothing(vec: SmaxVec) -> None:
    stand = np.zeros((1, ALLIES, vec.spec.action_dim), np.float32)
    stand[..., STOP] = 1.0
    vec.reset([2], [0])
    some_died, result = False, vec.step([2], stand)[0]
    while not (result.terminated or result.truncated):
        (result,) = vec.step([2], stand)
        health = result.state[: OWN * UNITS].reshape(UNITS, OWN)[:ALLIES, 0]
        np.testing.assert_array_equal(result.obs[health == 0, : vec.spec.obs_sizes[0]], 0.0)
        some_died |= bool((health == 0).any() and (health > 0).any())
    assert result.terminated
    assert not result.truncated
    assert some_died
    assert result.info["won"] == 0.0


def test_a_won_battle_terminates_and_is_rewarded(vec: SmaxVec) -> None:
    """Who shoots whenever it can, and else stands, beats as many that walk up to it, now and then."""
    shoot = np.zeros((1, ALLIES, vec.spec.action_dim), np.float32)
    shoot[..., STOP] = 0.5
    shoot[..., STOP + 1 :] = 1.0
    for seed in range(40):
        vec.reset([3], [seed])
        return_ = 0.0
        while True:
            (result,) = vec.step([3], shoot)
            return_ += result.reward
            if result.terminated or result.truncated:
                break
        if result.info["won"]:
            assert result.terminated
            assert return_ == pytest.approx(2.0)  # 1 for all of the enemy's health, 1 for the victory
            return
    raise AssertionError("40 battles, and none was won")


def test_time_runs_out_at_episode_steps(vec: SmaxVec) -> None:
    short = SmaxVec(vec.worker, "smax/3m", "none", episode_steps=5)
    short.reset([0], [0])
    action = np.zeros((1, ALLIES, short.spec.action_dim), np.float32)
    results = [short.step([0], action)[0] for _ in range(5)]
    assert [result.truncated for result in results] == [False] * 4 + [True]
    assert not any(result.terminated for result in results)
    with pytest.raises(EnvError, match="after the end"):
        short.step([0], action)


def test_seeds_beyond_32_bits_differ(vec: SmaxVec) -> None:
    first, second, again = (vec.reset([0], [seed])[0].state for seed in (3, 3 + 2**40, 3))
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)


def test_a_killed_worker_is_named_and_leaves_no_process() -> None:
    env = smax_config().build_vector(1)
    pid = env.worker.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the worker's death")
    with pytest.raises(EnvError, match=rf"smax/3m: the worker \(pid {pid}\) .*was killed by SIGKILL"):
        env.reset([0], [0])


def test_an_unknown_map_is_said_at_the_start() -> None:
    with pytest.raises(
        EnvError, match=r"smax/4m: ValueError while starting: there is no map '4m'; expected one of 3m, "
    ):
        smax_config(map="4m").build()


def test_every_map_has_its_file() -> None:
    asked = "from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO as maps; print(*maps, sep='\\n')"
    result = subprocess.run(
        [os.environ[PYTHON_VARIABLE], "-c", asked], capture_output=True, text=True, check=True, timeout=120
    )
    maps = [line for line in result.stdout.splitlines() if "moduled environments" not in line]
    assert {smax_config(map=name).env_id for name in maps} == {
        f"smax/{path.stem}" for path in CONFIGS.glob("*.yaml") if path.stem != "base"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2s3z", "5m_vs_6m", "smacv2_5_units"])
def test_nothing_is_found_wrong_on_other_maps(name: str) -> None:
    assert check_env(smax_config(map=name)) == []


@pytest.mark.slow
def test_all_worlds_at_once_differ_in_the_last_bits_at_most(vec: SmaxVec) -> None:
    at_once = smax_config(batching="vmap").build_vector(4)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (10, 4, ALLIES, vec.spec.action_dim))
    rows, seeds = [0, 1, 2, 3], [1, 2, 3, 4]
    for first, second in zip(vec.reset(rows, seeds), at_once.reset(rows, seeds), strict=True):
        np.testing.assert_allclose(first.state, second.state, atol=1e-4)
    for action in actions:
        for first, second in zip(vec.step(rows, action), at_once.step(rows, action), strict=True):
            np.testing.assert_allclose(first.state, second.state, atol=1e-3)
    at_once.close()


def test_the_same_seed_and_actions_repeat_an_episode(vec: SmaxVec) -> None:
    action = preferences(vec, np.random.default_rng(5), 1)
    for row in (0, 3):
        vec.reset([row], [11])
    results = [[vec.step([row], action)[0] for _ in range(8)] for row in (0, 3)]
    for first, second in zip(*results, strict=True):
        same(first, second)
