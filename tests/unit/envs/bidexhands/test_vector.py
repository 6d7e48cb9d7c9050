"""A vector of environments gives what separate ones give, also under a collector; a saved collector goes on."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from envs.base import StepResult
from envs.bidexhands.config import BiDexHandsConfig
from envs.check import check_env
from envs.collector import Collector
from envs.random_agent import RandomAgent
from envs.vector import SeparateEnvs, VecEnv, VectorEnvConfig, build_vector
from tests.support.bidexhands import EVERY, FACTS, random_actions
from worldmodel.config import ConfigError
from worldmodel.types import Trajectory

pytestmark = pytest.mark.mujoco

CONFIGS = Path(__file__).parents[4] / "configs"


def config(task: str, **changed: Any) -> BiDexHandsConfig:
    """What configs/ gives, with fast physics and two threads."""
    values = yaml.safe_load((CONFIGS / "env/bidexhands-mujoco/base.yaml").read_text())
    del values["_target_"]
    return BiDexHandsConfig(**(values | {"task": task, "physics": "fast", "num_threads": 2} | changed))


def assert_same(one: StepResult, other: StepResult) -> None:
    np.testing.assert_array_equal(one.obs, other.obs)
    np.testing.assert_array_equal(one.state, other.state)
    assert one[2:] == other[2:]  # reward, ends and info


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        *((task, {}) for task in EVERY),
        ("over", {"obs_mode": "full"}),
        ("pen", {"obs_mode": "full", "standardize_obs": True}),
        ("door-open-inward", {"contact_channels": False, "num_threads": None}),
        ("scissors", {"physics": "fine"}),
    ],
)
def test_a_vector_gives_what_separate_environments_give(task: str, changed: dict[str, Any]) -> None:
    made = config(task, **changed)
    vector, separate = made.build_vector(3), SeparateEnvs([made.build() for _ in range(3)])
    assert vector.spec == separate.spec
    assert vector.num_envs == 3
    for one, other in zip(vector.reset([2, 0], [5, 6]), separate.reset([2, 0], [5, 6]), strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.state, other.state)
    rng = np.random.default_rng(0)
    for action in random_actions(task, 6, 2, seed=0, scale=1.5):  # float64, which both take as float32
        rows = rng.permutation([0, 2])[: rng.integers(1, 3)].tolist()
        for one, other in zip(
            vector.step(rows, action[: len(rows)]), separate.step(rows, action[: len(rows)]), strict=True
        ):
            assert_same(one, other)
    vector.close()
    separate.close()


def collected(make_env: Any, task: str, **counts: Any) -> tuple[list[Trajectory], tuple[Any, ...]]:
    collector = Collector(make_env, 3, seed=1)
    agent = RandomAgent(collector.spec, torch.Generator().manual_seed(0))
    trajectories = [*collector.collect(agent, **counts), *collector.collect(agent, num_steps=9)]
    collector.close()
    return trajectories, collector.episodes


def assert_same_trajectories(ours: Sequence[Trajectory], theirs: Sequence[Trajectory]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.stream, one.seed, one.is_start) == (other.stream, other.seed, other.is_start)
        for name in ("obs", "state", "action", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("counts", [{"num_steps": 120}, {"num_episodes": 4}])
def test_a_collector_sees_no_difference(counts: dict[str, int]) -> None:
    """Bottles are lost at different times, so that counting episodes steps a part of the rows."""
    made = config("bottle-cap")
    assert isinstance(made, VectorEnvConfig)
    ours, ours_ended = collected(made, "bottle-cap", **counts)
    theirs, theirs_ended = collected(made.build, "bottle-cap", **counts)
    assert_same_trajectories(ours, theirs)
    assert ours_ended == theirs_ended
    if "num_episodes" in counts:
        assert len({trajectory.length for trajectory in ours[:4]}) > 1


class Recorder:
    """A `VecEnv` that notes which rows were stepped together."""

    def __init__(self, vector: VecEnv) -> None:
        self.vector, self.spec, self.num_envs = vector, vector.spec, vector.num_envs
        self.stepped: list[list[int]] = []

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> Any:
        return self.vector.reset(rows, seeds)

    def step(self, rows: Sequence[int], action: np.ndarray) -> Any:
        assert len(rows) == len(action)
        self.stepped.append(list(rows))
        return self.vector.step(rows, action)

    def close(self) -> None:
        self.vector.close()


def test_counting_episodes_steps_only_the_rows_that_still_play(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(build_vector(config("bottle-cap"), 3))
    monkeypatch.setattr("envs.collector.build_vector", lambda make_env, num_envs: recorder)
    collector = Collector(config("bottle-cap"), 3, seed=1)
    trajectories = collector.collect(RandomAgent(collector.spec, torch.Generator().manual_seed(0)), num_episodes=4)
    assert recorder.stepped[0] == [0, 1, 2]
    assert recorder.stepped[-1] == [0]  # the first stream plays one more
    played = {row: sum(row in rows for rows in recorder.stepped) for row in range(3)}
    assert played == {row: sum(t.length for t in trajectories if t.stream == row) for row in range(3)}


@pytest.mark.parametrize("pickled", [False, True])
def test_a_saved_collector_goes_on_bit_for_bit(pickled: bool) -> None:
    made = config("bottle-cap")

    def begun() -> tuple[Collector, RandomAgent]:
        collector = Collector(made, 2, seed=3)
        agent = RandomAgent(collector.spec, torch.Generator().manual_seed(0))
        collector.collect(agent, num_steps=70)  # into the second episodes
        return collector, agent

    collector, agent = begun()
    expected = collector.collect(agent, num_steps=20)
    original, agent = begun()
    if pickled:
        resumed = pickle.loads(pickle.dumps(original))
    else:
        resumed = Collector(made, 2, seed=3)
        resumed.load_state_dict(original.state_dict())
    assert_same_trajectories(expected, resumed.collect(agent, num_steps=20))


@pytest.mark.parametrize("task", EVERY)
def test_a_pickled_config_is_the_same(task: str) -> None:
    made = config(task)
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.env_id == f"bidexhands-mujoco/{task}"
    assert again.build().spec == made.build().spec


@pytest.mark.parametrize("task", ["over", "bottle-cap"])
def test_a_restored_environment_goes_on_as_before(task: str) -> None:
    env = config(task).build()
    env.reset(3)
    before, after = random_actions(task, 4, 1, seed=0)[:, 0], random_actions(task, 5, 1, seed=1)[:, 0]
    for action in before:
        env.step(action)
    snapshot, state = env.snapshot(), env.parallel_env.state()
    first = [env.step(action) for action in after]
    for reset in (True, False):
        if reset:
            env.reset(4)
        env.restore(snapshot)
        np.testing.assert_array_equal(env.parallel_env.state(), state)
        for action, expected in zip(after, first, strict=True):
            assert_same(env.step(action), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_threads": 0}, "num_threads = 0"),
        ({"render_width": 0}, "render_width = 0"),
        ({"render_height": 0}, "render_height = 0"),
        ({"standardize_obs": True}, "standardize_obs = True"),
        ({"physics": "slow"}, "physics"),
        ({"obs_mode": "own"}, "obs_mode"),
    ],
)
def test_a_wrong_setting_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("over", **changed)


def test_an_unknown_task_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="there is no task 'juggle'; expected one of over, bottle-cap"):
        config("juggle")


@pytest.mark.slow
@pytest.mark.parametrize("task", EVERY)
def test_nothing_is_wrong_with_fast_physics_but_that_some_episodes_begin_alike(task: str) -> None:
    """For fine physics: tests/contracts."""
    findings = check_env(config(task))
    assert [(f.check, f.severity) for f in findings] == ([] if FACTS[task].is_random else [("seeds", "warning")])
