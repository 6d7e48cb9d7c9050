"""Scripts solve their tasks, say the same for the same sight, and leave rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from envs.base import ScriptedEnv
from envs.bidexhands import TASKS, BiDexHandsBatch
from envs.bidexhands.scripted import SCRIPTS, scripted_policy
from envs.errors import EnvError
from tests.support.point_team import PointTeamConfig

pytestmark = pytest.mark.mujoco

CONFIGS = Path(__file__).parents[3] / "configs"
SOLVED = ("door-open-inward", "door-open-outward", "bottle-cap", "pen", "scissors")
"""Tasks that begin always alike and that the script solves."""


def build(task: str) -> Any:
    """The environment that `env=bidexhands-mujoco/TASK env.physics=fast` gives."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        composed = compose(overrides=[f"+env=bidexhands-mujoco/{task}", "env.physics=fast"])
    return instantiate(composed.env, _convert_="object").build()


def play(task: str, *, physics: str = "fast", noise: float = 0.0, rows: int = 1, stop: bool = True) -> np.ndarray:
    """Whether each of `rows` episodes succeeded; with `stop`, played until the first success only."""
    batch = BiDexHandsBatch(task, rows, physics="fine" if physics == "fine" else "fast")
    policy, rng = scripted_policy(task), np.random.default_rng(0)
    batch.reset(range(rows), range(rows))
    success = np.zeros(rows, dtype=bool)
    is_open = np.ones(rows, dtype=bool)
    for step in range(batch.task.episode_steps):
        playing = np.flatnonzero(is_open).tolist()
        readings = batch.readings(playing)
        elapsed = np.full(len(playing), step)
        result = batch.step(playing, policy.act(readings, elapsed, noise=noise, generator=rng))
        success[playing] |= result.success
        is_open[playing] = ~(result.terminated | result.truncated)
        if not is_open.any() or (stop and success.all()):
            break
    batch.close()
    return success


@pytest.mark.parametrize("task", SOLVED)
def test_a_script_solves_its_task(task: str) -> None:
    assert play(task).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", SOLVED)
def test_a_script_solves_its_task_in_fine_physics_and_with_noise(task: str) -> None:
    assert play(task, physics="fine").all()
    assert play(task, physics="fine", noise=0.05, rows=8).mean() >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("over", 0.5), ("catch-underarm", 0.3)])
def test_throws_arrive_more_often_than_not_at_all(task: str, least: float) -> None:
    assert play(task, physics="fine", rows=32).mean() >= least


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_script_that_keeps_to_shapes_and_range(task: str) -> None:
    batch = BiDexHandsBatch(task, 3, physics="fast")
    batch.reset(range(3), range(3))
    elapsed = np.array([0, 40, batch.task.episode_steps - 1])
    policy = scripted_policy(task)
    action = policy.act(batch.readings(range(3)), elapsed)
    assert action.shape == (3, 2, batch.action_size)
    assert np.abs(action).max() <= 1.0
    for row in range(3):  # a row's action depends on no other row, nor on what was asked before
        alone = policy.act(batch.readings([row]), elapsed[row : row + 1])
        np.testing.assert_allclose(alone[0], action[row], atol=1e-12)


def test_noise_is_its_generators() -> None:
    batch = BiDexHandsBatch("pen", physics="fast")
    batch.reset([0], [0])
    policy, readings, start = scripted_policy("pen"), batch.readings([0]), np.zeros(1)
    once, again = (policy.act(readings, start, noise=0.1, generator=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, policy.act(readings, start))
    with pytest.raises(ValueError, match=r"noise = 0\.1 without a generator"):
        policy.act(readings, start, noise=0.1)


def test_a_name_without_a_script_is_refused() -> None:
    assert set(SCRIPTS) == set(TASKS)
    with pytest.raises(EnvError, match="there is no task 'juggle'"):
        scripted_policy("juggle")


def test_the_environment_offers_its_script() -> None:
    env = build("scissors")
    assert isinstance(env, ScriptedEnv)
    assert not isinstance(PointTeamConfig(episode_steps=3).build(), ScriptedEnv)
    env.reset(0)
    batch = BiDexHandsBatch("scissors", physics="fast")
    batch.reset([0], [0])
    rng = np.random.default_rng(0)
    for step in range(40):
        expected = scripted_policy("scissors").act(batch.readings([0]), np.array([step]))
        action = env.scripted_action(0.0, rng)
        np.testing.assert_allclose(action, expected[0], atol=1e-5)  # the environment rounds actions to float32
        env.step(action)
        batch.step([0], expected)
    env.close()
