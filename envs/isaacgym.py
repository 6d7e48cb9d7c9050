"""Bi-DexHands itself, under Isaac Gym: `env=isaacgym/door-open-outward`. How to set it up: docs/isaacgym.md.

What can be configured, and how the worker that runs the simulator under its own Python is found and started.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from envs import isaacgym_worker
from envs.bidexhands.tasks import TASKS
from envs.isaacgym_link import IsaacGymWorker
from envs.isaacgym_vector import IsaacGymEnv, IsaacGymVec
from envs.pettingzoo import ObsMode
from envs.worker_process import WorkerRefused, activated, interpreter
from worldmodel.config import Config, ConfigError

PYTHON_VARIABLE = "ISAACGYM_PYTHON"


@dataclasses.dataclass(frozen=True)
class IsaacGymConfig(Config):
    """One task of Bi-DexHands as its authors published it. State: its whole `full_state` vector."""

    task: str
    """The original's name, e.g. ShadowHandDoorOpenOutward."""
    python: str | None
    """The interpreter that has Isaac Gym and Bi-DexHands; null: the environment variable ISAACGYM_PYTHON."""
    device: str
    """Of the simulator: cuda:N or cpu."""
    obs_mode: ObsMode
    """`local`: an agent's own hand and the object, as the original; `full`: the state for every agent."""
    standardize_obs: bool
    """Standardise each agent's vector by its own mean and deviation; only with `obs_mode=full`."""
    episode_steps: int | None
    """The simulator has its own; null."""
    timeout_s: float
    """Seconds that one reset or step of all worlds may take."""
    start_timeout_s: float
    """Seconds until the simulator has built its worlds; the very first start also compiles a part of it."""

    def validate(self) -> None:
        """Refuse names that are none, and times that are over before they begin."""
        self.require(self.task.isidentifier(), "task", "a name like ShadowHandOver")
        self.require(re.fullmatch(r"cpu|cuda:\d+", self.device) is not None, "device", "cpu or cuda:N")
        self.require(
            self.obs_mode == "full" or not self.standardize_obs, "standardize_obs", "false with obs_mode=local"
        )
        self.require(
            self.episode_steps is None,
            "episode_steps",
            "null, for the simulator has its own limit: env.episode_steps=null undoes what preset=smoke says",
        )
        self.require(self.timeout_s > 0, "timeout_s", "a number above 0")
        self.require(self.start_timeout_s > 0, "start_timeout_s", "a number above 0")

    @property
    def env_id(self) -> str:
        """The name in results: that of the port's task where there is one."""
        return f"isaacgym/{self._ported() or self.task}"

    def build(self) -> IsaacGymEnv:
        """One environment, with a simulator of its own."""
        return IsaacGymEnv(self.build_vector(1))

    def build_vector(self, num_envs: int) -> IsaacGymVec:
        """`num_envs` environments in one simulator; with more than one, each has a second world that stands ready."""
        worker = self._start(num_envs if num_envs == 1 else 2 * num_envs)
        return IsaacGymVec(worker, num_envs, self.env_id, self.obs_mode, self.standardize_obs)

    def command(self, num_worlds: int) -> list[str]:
        """What starts the worker; raises `ConfigError` when no interpreter is named, or none of that name is there."""
        named = self.python or os.environ.get(PYTHON_VARIABLE)
        if not named:
            raise ConfigError(
                f"{self.env_id} needs Isaac Gym and Bi-DexHands in a Python of their own, and nothing says where that "
                f"is: set env.python or {PYTHON_VARIABLE} to its interpreter (docs/isaacgym.md){self._instead()}"
            )
        python = interpreter(named)
        if python is None:
            raise ConfigError(
                f"{self.env_id}: there is no interpreter {named} (env.python, or {PYTHON_VARIABLE}){self._instead()}"
            )
        serve = ["--serve", f"isaacgym:{self.task}", "--with", self.device, "--num-worlds", str(num_worlds)]
        return [python, os.path.abspath(isaacgym_worker.__file__), *serve]

    def _start(self, num_worlds: int) -> IsaacGymWorker:
        command = self.command(num_worlds)
        try:
            return IsaacGymWorker(
                command,
                self.env_id,
                start_timeout_s=self.start_timeout_s,
                timeout_s=self.timeout_s,
                environment=activated(Path(command[0])),
            )
        except WorkerRefused as error:
            if error.kind != "ModuleNotFoundError":
                raise
            raise ConfigError(
                f"{self.env_id}: {command[0]} has no package {error.module!r} (docs/isaacgym.md){self._instead()}"
            ) from error

    def _ported(self) -> str | None:
        return next((task.name for task in TASKS.values() if task.original == self.task), None)

    def _instead(self) -> str:
        return f"; the same task on MuJoCo needs none of it: env=bidexhands-mujoco/{self._ported()}" * (
            self._ported() is not None
        )
