"""The worker's file by itself: what it may be made of, its arrays, and worlds behind the port's lazy resets."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from envs import isaacgym_worker as layout
from envs import worker_wire as wire
from envs.bidexhands import BiDexHandsBatch
from envs.bidexhands.lazy import LazyHands

SOURCE = Path(layout.__file__).read_text()
SIZES = layout.Sizes(worlds=3, agents=2, obs=4, state=5, action=2)


@pytest.mark.parametrize("version", [(3, 7), (3, 8)])
def test_it_is_written_for_the_python_of_isaac_gym(version: tuple[int, int]) -> None:
    ast.parse(SOURCE, feature_version=version)


def test_it_needs_the_standard_library_and_numpy() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(SOURCE)):
        assert not isinstance(node, ast.ImportFrom)
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    assert not imported & {"pickle", "marshal", "shelve", "multiprocessing"}


def test_arrays_arrive_as_they_were_sent() -> None:
    rng = np.random.default_rng(0)
    sent = {"again": np.array([1, 0, 1]), "action": rng.uniform(-1, 1, (3, 2, 2)).astype(np.float32)}
    parts = layout.request_parts(SIZES)
    payload = wire.pack(parts, sent)
    assert len(payload) == wire.num_bytes(parts) == 3 + 3 * 2 * 2 * 4
    arrived = wire.unpack(parts, payload)
    for name, array in sent.items():
        np.testing.assert_array_equal(arrived[name], array)


def test_arrays_of_another_size_are_refused_on_both_sides() -> None:
    parts = layout.request_parts(SIZES)
    with pytest.raises(ValueError, match=r"action has shape \[3, 2\]; expected \[3, 2, 2\]"):
        wire.pack(parts, {"again": np.zeros(3), "action": np.zeros((3, 2))})
    with pytest.raises(wire.ProtocolError, match="it has 50 bytes, expected 51"):
        wire.unpack(parts, bytes(50))


@pytest.mark.mujoco
class TestLazyHands:
    """The interface of the originals' wrapper on the port, against a batch that is stepped directly."""

    def test_a_step_gives_the_batch_s_numbers_for_both_agents(self) -> None:
        lazy, batch, rng = LazyHands("over", 2, physics="fast"), BiDexHandsBatch("over", 2, physics="fast"), _rng(7)
        lazy.seed(3)
        batch.reset([0, 1], [int(seed) for seed in _rng(3).integers(2**31, size=2)])
        for _ in range(3):
            action = rng.uniform(-1, 1, (2, 2, 20)).astype(np.float32)  # [N, B, A]
            obs, state, reward, done, info, available = lazy.step(action)
            expected = batch.step([0, 1], action.swapaxes(0, 1))
            np.testing.assert_array_equal(obs, expected.obs)
            for agent in range(2):
                np.testing.assert_array_equal(state[:, agent], expected.state)
                np.testing.assert_array_equal(reward[:, agent, 0], expected.reward)
                np.testing.assert_array_equal(done[:, agent], expected.terminated | expected.truncated)
            assert info.size == 0
            assert available is None

    def test_a_world_that_is_done_is_reset_inside_the_next_step_before_its_action(self) -> None:
        lazy = LazyHands("bottle-cap", 2, physics="fast")  # begins always the same
        first = [_random_step(lazy, seed) for seed in (0, 1)]
        lazy.task.reset_buf[0] = 1
        again = _random_step(lazy, 0)
        np.testing.assert_array_equal(again[0][0], first[0][0][0])  # reset, then that action
        assert (again[0][1] != first[0][0][1]).any()  # went on
        np.testing.assert_array_equal(lazy.task.progress_buf, [1, 3])

    def test_the_terminal_observation_is_shown_and_does_not_tell_why(self) -> None:
        lazy, batch = LazyHands("bottle-cap", 1, physics="fast"), BiDexHandsBatch("bottle-cap", 1, physics="fast")
        batch.reset([0], [0])
        open_hands = np.full((2, 1, 26), -1.0, np.float32)  # the bottle falls
        steps, is_over = 0, False
        while not is_over:
            obs, _, _, done, _, _ = lazy.step(open_hands)
            expected = batch.step([0], open_hands.swapaxes(0, 1))
            np.testing.assert_array_equal(obs, expected.obs)
            is_over, steps = bool(done.all()), steps + 1
            assert is_over == expected.terminated[0]
        assert lazy.task.reset_buf[0] == 1
        assert lazy.task.progress_buf[0] == steps < lazy.task.max_episode_length

    def test_reset_steps_everybody_and_begins_only_what_is_flagged(self) -> None:
        lazy = LazyHands("bottle-cap", 2, physics="fast")
        lazy.seed(5)
        obs, state, available = lazy.reset()
        assert (obs.shape, state.shape, available) == ((2, 2, 221), (2, 2, 420), None)
        actions = np.concatenate([state[:, 0, 173:199], state[:, 0, 372:398]], axis=1)
        assert 0.0 < np.abs(actions).max() <= 0.01
        lazy.reset()
        np.testing.assert_array_equal(lazy.task.progress_buf, [2, 2])

    def test_time_runs_out_at_the_task_s_length(self) -> None:
        lazy = LazyHands("over", 1, physics="fast")
        for step in range(1, 76):
            done = lazy.step(np.zeros((2, 1, 20)))[3]
            assert done.any() == (step == 75)
        assert lazy.task.max_episode_length == 75


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _random_step(lazy: LazyHands, seed: int) -> tuple[np.ndarray, ...]:
    shape = (2, lazy.num_environments, lazy.num_actions)
    return tuple(np.copy(array) for array in lazy.step(_rng(seed).uniform(-1, 1, shape))[:4])
