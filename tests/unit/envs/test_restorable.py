"""What follows a restored snapshot is what followed it the first time, to the bit, simulators included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from envs.base import EnvError, MultiAgentEnv, RestorableEnv, StepResult
from envs.mamujoco import MamujocoConfig, make_parallel_env
from envs.pettingzoo import PettingZooEnv
from envs.play import random_actions

CONFIGS = Path(__file__).parents[3] / "configs"
STEPS = 30

TOYS = ["toy/linear", "toy/bimodal"]
BODIES = ["halfcheetah-2x3", "ant-2x4", "humanoid-9-8", "reacher-2x1", "swimmer-2x1", "walker2d-2x3"]
EVERY = pytest.mark.parametrize(
    "name", TOYS + [pytest.param(f"mamujoco/{body}", marks=pytest.mark.mujoco) for body in BODIES]
)


def load(name: str, *overrides: str) -> Any:
    """The config object that `env=NAME` gives, with `overrides`."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        composed = compose(overrides=[f"+env={name}", *overrides])
    return instantiate(composed.env, _convert_="object")


def build(name: str, *overrides: str) -> RestorableEnv:
    env = load(name, *overrides).build()
    assert isinstance(env, RestorableEnv)
    return env


def step_on(env: MultiAgentEnv, actions: np.ndarray) -> list[StepResult]:
    """Every result until the actions or the episode end."""
    results: list[StepResult] = []
    for action in actions:
        results.append(env.step(action))
        if results[-1].terminated or results[-1].truncated:
            break
    return results


def assert_same(one: list[StepResult], other: list[StepResult]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)
        np.testing.assert_array_equal(a.state, b.state)
        assert a[2:] == b[2:]  # reward, ends and info


@EVERY
def test_the_same_actions_have_the_same_effect_again(name: str) -> None:
    env = build(name)
    actions = random_actions(env.spec, 5 + STEPS, 0)
    env.reset(seed=3)
    step_on(env, actions[:5])
    snapshot = env.snapshot()
    first = step_on(env, actions[5:])
    for _ in range(2):
        env.restore(snapshot)
        assert_same(first, step_on(env, actions[5:]))


@EVERY
def test_other_actions_have_another_effect_and_the_way_back_stays_open(name: str) -> None:
    env = build(name)
    actions = random_actions(env.spec, 3, 0)
    env.reset(seed=3)
    snapshot = env.snapshot()
    first = step_on(env, actions)
    env.restore(snapshot)
    other = step_on(env, -actions)
    env.restore(snapshot)
    assert (first[0].state != other[0].state).any()
    assert_same(first, step_on(env, actions))


@EVERY
def test_a_restored_episode_is_the_one_that_was_never_left(name: str) -> None:
    """Also after other episodes, and with snapshots of two environments taken in turn."""
    env, twin, unbroken = (build(name) for _ in range(3))
    actions = random_actions(env.spec, 12, 0)
    unbroken.reset(seed=1)
    whole = step_on(unbroken, actions)
    assert len(whole) == 12
    env.reset(seed=1)
    twin.reset(seed=2)
    taken: list[StepResult] = []
    for action in actions:
        here, there = env.snapshot(), twin.snapshot()
        step_on(env, -actions[:4])
        step_on(twin, actions[:2])
        env.reset(seed=7)
        env.restore(here)
        twin.restore(there)
        taken.append(env.step(action))
    assert_same(whole, taken)


@EVERY
def test_an_episode_that_timed_out_can_be_taken_up_again(name: str) -> None:
    env = build(name, "env.episode_steps=8")
    actions = random_actions(env.spec, 8, 0)
    env.reset(seed=5)
    step_on(env, actions[:6])
    snapshot = env.snapshot()
    end = step_on(env, actions[6:])
    assert end[-1].truncated
    after_end = env.snapshot()
    with pytest.raises(EnvError, match="after the episode's end"):
        env.step(actions[0])
    env.restore(snapshot)
    assert_same(end, step_on(env, actions[6:]))
    env.reset(seed=6)
    env.restore(after_end)
    with pytest.raises(EnvError, match="after the episode's end"):
        env.step(actions[0])


@pytest.mark.mujoco
@pytest.mark.parametrize("body", ["walker2d-2x3", "humanoid-9-8"])
def test_a_body_that_fell_can_be_taken_up_again(body: str) -> None:
    env = build(f"mamujoco/{body}")
    actions = np.sign(random_actions(env.spec, 200, 0))
    env.reset(seed=0)
    step_on(env, actions[:3])
    snapshot = env.snapshot()
    fall = step_on(env, actions[3:])
    assert fall[-1].terminated
    env.restore(snapshot)
    assert_same(fall, step_on(env, actions[3:]))


@pytest.mark.mujoco
def test_local_observations_come_back_too() -> None:
    env = build("mamujoco/ant-4x2", "env.obs_mode=local")
    actions = random_actions(env.spec, 10, 0)
    env.reset(seed=0)
    step_on(env, actions[:4])
    snapshot = env.snapshot()
    first = step_on(env, actions[4:])
    env.restore(snapshot)
    assert_same(first, step_on(env, actions[4:]))


@pytest.mark.mujoco
def test_an_adapter_that_cannot_go_back_does_not_claim_to() -> None:
    config: MamujocoConfig = load("mamujoco/swimmer-2x1")
    plain = PettingZooEnv(make_parallel_env(config), env_id="plain", episode_steps=10, obs_mode="full")
    assert not isinstance(plain, RestorableEnv)
