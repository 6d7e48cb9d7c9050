"""A tiny environment without a simulator: agents push a point about; faults can be switched on for tests."""

from __future__ import annotations

import dataclasses
import time
from typing import Literal

import numpy as np

from envs.base import MultiAgentEnv, Observed, StepResult
from worldmodel.config import Config
from worldmodel.types import EnvSpec

Fault = Literal["none", "not_finite", "shape", "dtype", "reward"]


@dataclasses.dataclass(frozen=True)
class PointTeamConfig(Config):
    """The environment's options."""

    num_agents: int = 2
    episode_steps: int = 20
    fault: Fault = "none"
    fault_at: int = 5
    """Env steps of this environment, over all episodes, after which the fault shows; 0: at the first reset."""
    fault_every: int = 1
    """Only episodes whose seed is a multiple of this are faulty."""
    step_s: float = 0.0
    """Seconds that every step takes, so that a run lasts long enough to be killed in the middle."""
    ignores_seed: bool = False
    """Every episode begins and goes on like that of seed 0: what differs comes from the actions."""

    def build(self) -> MultiAgentEnv:
        """A fresh environment."""
        return PointTeam(self)


class PointTeam:
    """State: position and velocity. Reward: minus the distance to the origin."""

    def __init__(self, config: PointTeamConfig) -> None:
        self.config = config
        self.spec = EnvSpec(
            env_id="test/point-team",
            num_agents=config.num_agents,
            state_dim=2,
            obs_sizes=(2,) * config.num_agents,
            action_sizes=(1,) * config.num_agents,
            episode_steps=config.episode_steps,
            appends_agent_id=True,
            versions=(("point-team", "1"),),
        )
        self._state = np.zeros(2)
        self._noise = np.random.default_rng(0)
        self._seed = 0
        self._step = 0
        self._steps_in_all = 0

    def reset(self, seed: int) -> Observed:
        self._seed = seed
        self._noise = np.random.default_rng(0 if self.config.ignores_seed else seed)
        self._state = self._noise.normal(size=2)
        self._step = 0
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        time.sleep(self.config.step_s)
        self._step += 1
        self._steps_in_all += 1
        position, velocity = self._state
        velocity = 0.9 * velocity + 0.3 * float(action.clip(-1, 1).sum()) + 0.01 * self._noise.normal()
        self._state = np.array([position + 0.1 * velocity, velocity])
        reward = -abs(float(self._state[0]))
        if self.config.fault == "reward" and self._is_faulty():
            reward = float("inf")
        return StepResult(*self._observe(), reward, False, self._step >= self.config.episode_steps, {})

    def render(self) -> np.ndarray:
        picture = np.zeros((48, 64, 3), dtype=np.uint8)
        picture[:, int(np.clip(32 + 10 * self._state[0], 0, 63))] = 255
        return picture

    def close(self) -> None:
        pass

    def _is_faulty(self) -> bool:
        return self._steps_in_all >= self.config.fault_at and self._seed % self.config.fault_every == 0

    def _observe(self) -> Observed:
        agents = self.config.num_agents
        state = self._state.astype(np.float32)
        obs = np.concatenate([np.tile(state, (agents, 1)), np.eye(agents, dtype=np.float32)], axis=1)
        if self._is_faulty():
            if self.config.fault == "not_finite":
                state = np.full_like(state, np.nan)
            elif self.config.fault == "shape":
                obs = obs[:, :-1]
            elif self.config.fault == "dtype":
                obs = obs.astype(np.float64)
        return Observed(obs, state)
