"""Toy environments that kill the process they run in: as the out-of-memory killer or a crash in native code would."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Literal

import numpy as np

from envs.base import MultiAgentEnv, Observed, StepResult
from envs.toy.counter import CounterConfig
from tests.support.point_team import PointTeamConfig
from worldmodel.config import Config
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class FragileConfig(Config):
    """Which environment, and where it kills."""

    kind: Literal["counter", "point"] = "point"
    episode_steps: int = 20
    step_s: float = 0.0
    """Seconds that every step takes."""
    deadly_seed: int = -1
    """Seed of the episode that kills; -1: none does."""
    deadly_step: int = 3
    """The step of that episode in which it does."""
    mark: str = ""
    """A file that gets a letter for each kill."""
    kills: int = 1
    """Kills after which it lives."""

    def build(self) -> MultiAgentEnv:
        """A fresh environment."""
        return FragileEnv(self)


class FragileEnv:
    """The environment that `kind` names, but for the kills."""

    def __init__(self, config: FragileConfig) -> None:
        self._config = config
        counter = CounterConfig(num_agents=2, shortest_episode=3, episode_steps=config.episode_steps)
        point = PointTeamConfig(episode_steps=config.episode_steps)
        self._env = (counter if config.kind == "counter" else point).build()
        self._seed = -1
        self._step = 0

    @property
    def spec(self) -> EnvSpec:
        return self._env.spec

    def reset(self, seed: int) -> Observed:
        self._seed, self._step = seed, 0
        return self._env.reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        self._step += 1
        if self._seed == self._config.deadly_seed and self._step == self._config.deadly_step:
            self._kill()
        time.sleep(self._config.step_s)
        return self._env.step(action)

    def render(self) -> np.ndarray:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _kill(self) -> None:
        mark = Path(self._config.mark)
        kills = len(mark.read_text()) if mark.exists() else 0
        if kills < self._config.kills:
            mark.write_text("x" * (kills + 1))
            os.kill(os.getpid(), signal.SIGKILL)
