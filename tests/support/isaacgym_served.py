"""Workers like Isaac Gym's, without Isaac Gym: the MuJoCo port served through the same protocol, by the same file."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from envs import isaacgym_worker
from envs.base import StepResult
from envs.bidexhands import BiDexHandsBatch
from envs.isaacgym import IsaacGymConfig
from envs.isaacgym_link import IsaacGymWorker
from envs.isaacgym_vector import IsaacGymVec

DEFAULTS: dict[str, Any] = {
    "task": "ShadowHandOver",
    "python": None,
    "device": "cpu",
    "obs_mode": "local",
    "standardize_obs": False,
    "episode_steps": None,
    "timeout_s": 30.0,
    "start_timeout_s": 60.0,
}


@dataclasses.dataclass(frozen=True)
class ServedConfig(IsaacGymConfig):
    """Does all that the adapter does with Isaac Gym, but starts a worker that serves the port."""

    def command(self, num_worlds: int) -> list[str]:
        return served(self.env_id.removeprefix("isaacgym/"), num_worlds)


def served_config(**changes: Any) -> ServedConfig:
    return ServedConfig(**{**DEFAULTS, **changes})


def served(task: str, num_worlds: int) -> list[str]:
    """The command that serves a task of the port."""
    options = ["--serve", f"mujoco:{task}", "--with", "fast", "--num-worlds", str(num_worlds)]
    return [sys.executable, isaacgym_worker.__file__, *options]


def start(task: str, num_worlds: int, timeout_s: float = 30.0) -> IsaacGymWorker:
    return IsaacGymWorker(served(task, num_worlds), f"isaacgym/{task}", start_timeout_s=60.0, timeout_s=timeout_s)


def vector(task: str, num_envs: int) -> IsaacGymVec:
    """As `IsaacGymConfig.build_vector` makes it."""
    worker = start(task, num_envs if num_envs == 1 else 2 * num_envs)
    return IsaacGymVec(worker, num_envs, f"isaacgym/{task}", "local", False)


class Replayed:
    """An episode with the bottle, played by a batch from what is shown of it: the first action is part of the state."""

    def __init__(self) -> None:
        self.batch = BiDexHandsBatch("bottle-cap", physics="fast")

    def begin(self, state: np.ndarray) -> None:
        self.batch.reset([0], [0])
        first = np.stack([state[173:199], state[372:398]])
        assert 0.0 < np.abs(first).max() <= 0.01
        np.testing.assert_array_equal(self.batch.step([0], first[None]).state[0], state)

    def step(self, action: np.ndarray, result: StepResult) -> None:
        expected = self.batch.step([0], action[None])
        np.testing.assert_array_equal(result.obs[:, :-2], expected.obs[0])
        np.testing.assert_array_equal(result.state, expected.state[0])
        assert result.reward == expected.reward[0]
        assert (result.terminated, result.truncated) == (expected.terminated[0], expected.truncated[0])
        assert result.info == {"success": float(expected.success[0])}
