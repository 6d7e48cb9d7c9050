"""What a person may do wrong with one environment: each mistake is named, with what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from envs.bidexhands import parallel_env
from envs.bidexhands.pettingzoo_env import BiDexHandsParallelEnv
from envs.errors import EnvError

pytestmark = pytest.mark.mujoco


@pytest.fixture(scope="module")
def env() -> Iterator[BiDexHandsParallelEnv]:
    env = parallel_env("over")
    yield env
    env.close()


def actions(env: BiDexHandsParallelEnv, **changes: Any) -> dict[str, Any]:
    return {agent: np.zeros(env.action_space(agent).shape, np.float32) for agent in env.possible_agents} | changes


def bad_value(env: BiDexHandsParallelEnv, entry: int, value: float) -> np.ndarray:
    action = np.zeros(env.action_space(env.possible_agents[1]).shape, np.float32)
    action[entry] = value
    return action


@pytest.mark.parametrize("call", ["state", "render", "step"])
def test_nothing_is_there_before_a_reset(call: str) -> None:
    env = parallel_env("over")
    with pytest.raises(EnvError, match=rf"{call}\(\) before reset\(\)"):
        getattr(env, call)(*([actions(env)] if call == "step" else []))
    env.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda env: {"third": np.zeros(20)}, "third; expected one for each of"),
        (lambda env: {env.possible_agents[1]: bad_value(env, 7, np.nan)}, "entry 7 of the action of .* is nan"),
        (lambda env: {env.possible_agents[1]: bad_value(env, 2, -np.inf)}, "entry 2 of the action of .* is -inf"),
        (lambda env: {env.possible_agents[0]: np.zeros(3)}, r"has shape \[3\]; expected \[20\]"),
        (lambda env: {env.possible_agents[0]: ["a"] * 20}, "dtype <U1; expected real numbers"),
    ],
)
def test_a_wrong_action_names_its_agent(env: BiDexHandsParallelEnv, change: Any, message: str) -> None:
    env.reset(seed=0)
    before = env.state()
    with pytest.raises(EnvError, match=message):
        env.step(actions(env) | change(env))
    np.testing.assert_array_equal(env.state(), before)


def test_actions_come_in_a_dict(env: BiDexHandsParallelEnv) -> None:
    env.reset(seed=0)
    with pytest.raises(EnvError, match="actions are a list; expected a dict"):
        env.step([np.zeros(20)] * 2)  # type: ignore[arg-type]


def test_a_negative_seed_is_refused(env: BiDexHandsParallelEnv) -> None:
    with pytest.raises(EnvError, match="seed=-1"):
        env.reset(seed=-1)
