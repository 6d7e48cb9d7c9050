"""Workers like Isaac Gym's, without Isaac Gym: the MuJoCo port served through the same protocol, by the same file."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from envs import isaacgym_worker
from envs.isaacgym import IsaacGymConfig
from envs.isaacgym_link import IsaacGymWorker
from envs.isaacgym_vector import IsaacGymVec

DEFAULTS: dict[str, Any] = {
    "task": "ShadowHandOver",
    "python": None,
    "device": "cpu",
    "obs_mode": "local",
    "standardize_obs": False,
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
