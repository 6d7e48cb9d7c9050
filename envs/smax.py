"""SMAX, the battles of StarCraft without StarCraft: `env=smax/3m`. How to set it up: docs/smac.md.

What can be configured, and how the worker that runs JAX under its own Python is found and started.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Literal

from envs import smax_worker
from envs.hiding import SUFFIX, Hide
from envs.smax_vector import SmaxEnv, SmaxVec, SmaxWorker
from envs.worker_process import WorkerRefused, activated, interpreter
from worldmodel.config import Config, ConfigError

PYTHON_VARIABLE = "DIMA_SMAX_PYTHON"
HOW = "python -m venv .smax && .smax/bin/pip install jaxmarl"


@dataclasses.dataclass(frozen=True)
class SmaxConfig(Config):
    """One map of SMAX against its scripted enemy; agents do not see what `hide` says, the state holds everything."""

    map: str
    """As SMAX spells it, e.g. 5m_vs_6m or smacv2_5_units."""
    python: str | None
    """The interpreter that has jaxmarl; null: the environment variable DIMA_SMAX_PYTHON."""
    hide: Hide
    """`types_and_health`: of all other units; `enemy_types_and_health`: of the enemies alone; `none`: SMAX as it is."""
    episode_steps: int
    """After which an episode is truncated."""
    see_enemy_actions: bool
    """Whether agents see where the enemies they see moved, and whom they attacked."""
    walls_cause_death: bool
    """Whether a unit that touches the border of the field dies."""
    batching: Literal["map", "vmap"]
    """`map`: one world after the other in one compiled program, exactly as if it were alone; `vmap`: all at once."""
    timeout_s: float
    """Seconds that one reset or step of all worlds may take."""
    start_timeout_s: float
    """Seconds until the worker has compiled everything."""

    def validate(self) -> None:
        """Refuse names that are none, and times that are over before they begin."""
        self.require(self.map.replace("_", "").isalnum(), "map", "a name like 3m or smacv2_5_units")
        self.require(self.episode_steps >= 1, "episode_steps", "at least 1")
        self.require(self.timeout_s > 0, "timeout_s", "a number above 0")
        self.require(self.start_timeout_s > 0, "start_timeout_s", "a number above 0")

    @property
    def env_id(self) -> str:
        """The name in results: that of the file, and what is hidden where it is not what the file says."""
        name = self.map.replace("_", "-") if self.map.startswith("smacv2") else self.map
        return f"smax/{name}{SUFFIX[self.hide]}"

    def build(self) -> SmaxEnv:
        """One environment, with a worker of its own."""
        return SmaxEnv(self.build_vector(1))

    def build_vector(self, num_envs: int) -> SmaxVec:
        """`num_envs` environments in one worker."""
        return SmaxVec(self._start(num_envs), self.env_id, self.hide, self.episode_steps)

    def command(self, num_worlds: int) -> list[str]:
        """What starts the worker; raises `ConfigError` when no interpreter is named, or none of that name is there."""
        named = self.python or os.environ.get(PYTHON_VARIABLE)
        if not named:
            raise ConfigError(
                f"{self.env_id} needs the package jaxmarl in a Python of its own, and nothing says where that is: run "
                f"{HOW}, and set env.python or {PYTHON_VARIABLE} to .smax/bin/python (docs/smac.md)"
            )
        python = interpreter(named)
        if python is None:
            raise ConfigError(f"{self.env_id}: there is no interpreter {named} (env.python, or {PYTHON_VARIABLE})")
        settings = {
            "batching": self.batching,
            "max_steps": self.episode_steps,
            "see_enemy_actions": self.see_enemy_actions,
            "walls_cause_death": self.walls_cause_death,
        }
        serve = ["--serve", f"smax:{self.map}", "--with", json.dumps(settings), "--num-worlds", str(num_worlds)]
        return [python, os.path.abspath(smax_worker.__file__), *serve]

    def _start(self, num_worlds: int) -> SmaxWorker:
        command = self.command(num_worlds)
        try:
            return SmaxWorker(
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
                f"{self.env_id}: {command[0]} has no package {error.module!r}: {HOW} (docs/smac.md)"
            ) from error
