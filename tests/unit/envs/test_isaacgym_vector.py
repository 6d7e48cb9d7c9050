"""Isaac Gym's worlds as environments, on the MuJoCo port served by the real worker process with the same lazy resets.

Whatever is handed out as an episode is played again in a batch of the port, world by world and bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from envs.base import EnvError, Observed, StepResult
from envs.check import check_env
from envs.collector import Collector
from envs.isaacgym_vector import IsaacGymVec
from envs.random_agent import RandomAgent
from tests.support.isaacgym_served import Replayed, served_config, vector
from worldmodel.types import Trajectory

pytestmark = pytest.mark.mujoco

OPEN, STILL = -1.0, 0.0
"""Actions of everybody: open hands let things fall, hands in the middle of their range hold them."""


@pytest.fixture(scope="module")
def vec() -> Iterator[IsaacGymVec]:
    """Two rows with the bottle, which begins always the same."""
    vec = vector("bottle-cap", 2)
    yield vec
    vec.close()


@pytest.fixture(scope="module")
def egg() -> Iterator[IsaacGymVec]:
    """One row with the egg, which begins as the seed says."""
    egg = vector("over", 1)
    yield egg
    egg.close()


def everybody(vec: IsaacGymVec, rows: int, value: float) -> np.ndarray:
    return np.full((rows, vec.spec.num_agents, vec.spec.action_dim), value, np.float32)


def play(vec: IsaacGymVec, value: float) -> tuple[int, StepResult]:
    """An episode in row 0, all by itself: its length and its last step."""
    vec.reset([0], [0])
    for length in range(1, 1000):
        (result,) = vec.step([0], everybody(vec, 1, value))
        if result.terminated or result.truncated:
            return length, result
    raise AssertionError("the episode does not end")


def test_the_spec_is_that_of_the_worlds(vec: IsaacGymVec) -> None:
    spec = vec.spec
    assert (spec.env_id, vec.num_envs, spec.num_agents) == ("isaacgym/bottle-cap", 2, 2)
    assert (spec.obs_sizes, spec.state_dim, spec.action_sizes) == ((221, 221), 420, (26, 26))
    assert spec.episode_steps == 124  # the first of the original's 125 shows nothing before it
    assert dict(spec.versions).keys() >= {"mujoco", "python"}


def test_every_step_of_every_episode_is_one_that_a_world_has_taken(vec: IsaacGymVec) -> None:
    """Row 0 fails again and again, and pauses between episodes; row 1 goes on all the while."""
    rng, replayed, paused = np.random.default_rng(0), [Replayed(), Replayed()], 0
    rows, ends = [0, 1], 0
    for row, observed in enumerate(vec.reset(rows, [3, 4])):
        replayed[row].begin(observed.state)
    for _ in range(60):
        action = np.concatenate([everybody(vec, 1, OPEN), rng.uniform(-0.1, 0.1, (1, 2, 26)).astype(np.float32)])
        results = dict(zip(rows, vec.step(rows, action[rows]), strict=True))
        for row, result in results.items():
            replayed[row].step(action[row], result)
        assert not results[1].terminated
        if 0 in rows and results[0].terminated:
            rows, ends, paused = [1], ends + 1, 0
        elif rows == [1]:
            paused += 1
        if paused == 2:
            replayed[0].begin(vec.reset([0], [5])[0].state)
            rows, paused = [0, 1], 0
    assert ends >= 4


def test_a_collector_s_episodes_can_be_played_again() -> None:
    collector = Collector(served_config(task="ShadowHandBottleCap"), 2, seed=1)
    agent = RandomAgent(collector.spec, torch.Generator().manual_seed(0))
    by_steps = collector.collect(agent, num_steps=60)
    assert sum(trajectory.length for trajectory in by_steps) == 60
    by_episodes = collector.collect(agent, num_episodes=3)  # the second row has less to do, and then waits
    assert len(collector.episodes) == 3
    following = collector.collect(agent, num_episodes=2)
    ended = [trajectory for trajectory in by_steps + by_episodes + following if trajectory.is_start]
    assert len(ended) >= 5
    for trajectory in ended:
        _replay(trajectory)
    collector.load_state_dict(collector.state_dict())  # no episode is open, so none is to be repeated
    collector.close()


def _replay(trajectory: Trajectory) -> None:
    replayed = Replayed()
    replayed.begin(trajectory.state[0].numpy())
    for t in range(trajectory.length):
        expected = replayed.batch.step([0], trajectory.action[t].numpy()[None])
        np.testing.assert_array_equal(trajectory.state[t + 1].numpy(), expected.state[0])
        assert (trajectory.terminated[t], trajectory.truncated[t]) == (expected.terminated[0], expected.truncated[0])


def test_an_end_before_the_last_step_is_a_failure_and_one_at_it_the_time_s(egg: IsaacGymVec) -> None:
    length, last = play(egg, OPEN)
    assert length < egg.spec.episode_steps
    assert (last.terminated, last.truncated) == (True, False)
    length, last = play(egg, STILL)
    assert length == egg.spec.episode_steps == 74
    assert (last.terminated, last.truncated) == (False, True)


def test_one_row_repeats_an_episode_from_its_seed(egg: IsaacGymVec) -> None:
    action = np.random.default_rng(0).uniform(-1, 1, (2, 20))
    seen = []
    for seed in (4, 5, 4):
        (observed,) = egg.reset([0], [seed])
        seen.append((observed.state, egg.step([0], action[None])[0].state))
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[0][0] != seen[1][0]).any()


@pytest.mark.slow
def test_nothing_is_found_wrong_with_one_row() -> None:
    assert check_env(served_config()) == []


def collectors(num_envs: int) -> Iterator[Collector]:
    for _ in range(2):
        collector = Collector(served_config(task="ShadowHandBottleCap"), num_envs, seed=2)
        yield collector
        collector.close()


def test_one_row_can_go_on_where_it_was_saved() -> None:
    following = []
    for collector in collectors(1):
        agent = RandomAgent(collector.spec, torch.Generator().manual_seed(1))
        if following:
            collector.load_state_dict(following[0][0])
        else:
            collector.collect(agent, num_steps=5)
        following.append((collector.state_dict(), collector.collect(agent, num_steps=3)[0].state))
    assert torch.equal(following[0][1][0], following[1][1][0])


def test_open_episodes_of_several_rows_cannot_be_gone_on_with() -> None:
    saved = None
    for collector in collectors(2):
        if saved is None:
            collector.collect(RandomAgent(collector.spec, torch.Generator().manual_seed(0)), num_steps=4)
            saved = collector.state_dict()
        else:
            with pytest.raises(EnvError, match=r"does not repeat itself|saved run does: .*collect_unit=episodes"):
                collector.load_state_dict(saved)


def test_a_row_in_an_episode_cannot_wait(vec: IsaacGymVec) -> None:
    vec.reset([0, 1], [0, 0])
    with pytest.raises(EnvError, match="row 1 is in the middle of an episode and cannot wait"):
        vec.step([0], everybody(vec, 1, STILL))
    vec.step([1, 0], everybody(vec, 2, STILL))  # nothing has happened meanwhile


def test_a_row_begins_anew_at_any_time_without_disturbing_the_other(vec: IsaacGymVec) -> None:
    replayed = [Replayed(), Replayed()]
    for row, observed in enumerate(vec.reset([0, 1], [0, 0])):
        replayed[row].begin(observed.state)
    for _ in range(3):
        action = everybody(vec, 2, 0.05)
        for row, result in enumerate(vec.step([0, 1], action)):
            replayed[row].step(action[row], result)
        for _ in range(2):  # the second time it stands at the beginning already
            replayed[0].begin(vec.reset([0], [9])[0].state)


def test_steps_that_cannot_be_are_refused(vec: IsaacGymVec) -> None:
    vec.reset([0, 1], [0, 0])
    for rows in ([0, 0], [0, 1, 1]):
        with pytest.raises(EnvError, match="or twice"):
            vec.step(rows, everybody(vec, len(rows), STILL))
    with pytest.raises(EnvError, match=r"action \[2, 2, 25\]; expected finite numbers \[2, 2, 26\]"):
        vec.step([0, 1], np.zeros((2, 2, 25)))
    with pytest.raises(EnvError, match="expected finite numbers"):
        vec.step([0, 1], everybody(vec, 2, np.nan))


def test_an_ended_row_cannot_be_stepped(egg: IsaacGymVec) -> None:
    play(egg, OPEN)
    with pytest.raises(EnvError, match=r"step\(\) of \[0\] before reset\(\), after the end"):
        egg.step([0], everybody(egg, 1, STILL))


def test_actions_are_clipped_and_left_alone(egg: IsaacGymVec) -> None:
    seen = []
    for value in (1.0, 3.0):
        egg.reset([0], [7])
        action = everybody(egg, 1, value)
        seen.append(egg.step([0], action)[0])
        assert (action == value).all()
    np.testing.assert_array_equal(seen[0].state, seen[1].state)


def test_what_was_shown_stays_as_it_was(egg: IsaacGymVec) -> None:
    observed = egg.reset([0], [7])[0]
    kept = Observed(observed.obs.copy(), observed.state.copy())
    egg.step([0], everybody(egg, 1, OPEN))
    np.testing.assert_array_equal(observed.state, kept.state)
    observed.state[:] = 0.0  # it is the caller's


def test_a_simulator_that_counts_otherwise_is_refused(egg: IsaacGymVec, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = egg.worker.step
    egg.reset([0], [0])
    monkeypatch.setattr(egg.worker, "step", lambda *asked: {**stepped(*asked), "progress": np.array([1])})
    with pytest.raises(EnvError, match="world 0 is at step 1 by its own count, expected 2: .*docs/isaacgym.md assumes"):
        egg.step([0], everybody(egg, 1, STILL))


def test_an_episode_without_end_is_refused(egg: IsaacGymVec, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = egg.worker.step
    monkeypatch.setattr(egg.worker, "step", lambda *asked: {**stepped(*asked), "done": np.array([0])})
    with pytest.raises(EnvError, match="an episode goes on after 75 steps, its length"):
        play(egg, STILL)


def test_episodes_that_are_over_at_once_are_refused(egg: IsaacGymVec, monkeypatch: pytest.MonkeyPatch) -> None:
    was_reset = egg.worker.reset
    monkeypatch.setattr(egg.worker, "reset", lambda seed: {**was_reset(seed), "done": np.array([1])})
    with pytest.raises(EnvError, match="every episode is over at its first step"):
        egg.reset([0], [0])


def test_full_observations_are_the_state_and_the_agent_s_number() -> None:
    env = served_config(obs_mode="full").build()
    observed = env.reset(0)
    for agent in range(2):
        np.testing.assert_array_equal(observed.obs[agent], [*observed.state, *np.eye(2)[agent]])
    with pytest.raises(EnvError, match="the worker makes no pictures; the MuJoCo port does"):
        env.render()
    env.close()
