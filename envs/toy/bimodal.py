"""A system whose next state has two modes of known weights: what a model that predicts one mean cannot represent.

s' = memory * s + gain * (team's push) + or - jump, with probability p or 1 - p, plus a little Gaussian noise.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.toy.system import Mixture, SystemEnv, circular_window, with_agent_id
from worldmodel.config import Config
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class BimodalConfig(Config):
    """A system that jumps to one side or the other."""

    num_agents: int
    """N; agent i pushes coordinate i modulo S."""
    state_dim: int
    obs_size: int
    """Coordinates of the state that each agent sees."""
    memory: float
    """Factor of the old state in the new one, below 1."""
    gain: float
    """How far one agent's action, at 1, moves its coordinate."""
    jump: float
    """Half the distance between the two modes in each coordinate; all coordinates jump together."""
    probability: float
    """Of the jump in positive direction."""
    noise_std: float
    """Standard deviation of the noise within a mode, in each coordinate."""
    terminate_beyond: float | None
    """The episode terminates when the state's length exceeds this; null: never."""
    episode_steps: int

    def validate(self) -> None:
        """Refuse sizes below 1, a state that grows without bound, and modes that overlap."""
        for name in ("num_agents", "state_dim", "episode_steps"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(1 <= self.obs_size <= self.state_dim, "obs_size", f"1 to state_dim = {self.state_dim}")
        self.require(0 <= self.memory < 1, "memory", "at least 0 and below 1")
        self.require(0 < self.probability < 1, "probability", "above 0 and below 1")
        self.require(self.noise_std >= 0, "noise_std", "at least 0")
        self.require(self.jump >= 3 * self.noise_std, "jump", "at least 3 * noise_std, else the modes overlap")
        self.require(self.terminate_beyond is None or self.terminate_beyond > 0, "terminate_beyond", "null or above 0")

    def build(self) -> SystemEnv:
        """The environment that plays this system."""
        return SystemEnv(BimodalSystem(self))


class BimodalSystem:
    """s' ~ p N(m + jump, std^2 I) + (1-p) N(m - jump, std^2 I) with m = memory s + push; reward -|s'|^2 / S."""

    def __init__(self, config: BimodalConfig) -> None:
        self._config = config
        self._push = np.zeros((config.state_dim, config.num_agents))
        self._push[np.arange(config.num_agents) % config.state_dim, np.arange(config.num_agents)] = config.gain
        self._window = circular_window(config.num_agents, config.state_dim, config.obs_size)
        self._spec = EnvSpec(
            env_id=f"toy/bimodal-{config.num_agents}x1",
            num_agents=config.num_agents,
            state_dim=config.state_dim,
            obs_sizes=(config.obs_size,) * config.num_agents,
            action_sizes=(1,) * config.num_agents,
            episode_steps=config.episode_steps,
            appends_agent_id=True,
        )

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        return self._spec

    def mixture(self, state: np.ndarray, action: np.ndarray) -> Mixture:
        """The exact law of s' for `state` [..., S] and the joint `action` [..., N, 1]; the positive mode first."""
        middle = self._config.memory * state + action[..., 0] @ self._push.T
        return Mixture(
            weight=np.array([self._config.probability, 1 - self._config.probability]),
            mean=np.stack([middle + self._config.jump, middle - self._config.jump]),
            std=self._config.noise_std,
        )

    def first_state(self, generator: np.random.Generator) -> np.ndarray:
        """Draw a first state [S] from the unit normal law."""
        return generator.standard_normal(self._config.state_dim)

    def next_state(self, state: np.ndarray, action: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw a mode, then s' [S] within it."""
        law = self.mixture(state, action)
        mode = int(generator.random() >= self._config.probability)
        return law.mean[mode] + law.std * generator.standard_normal(self._config.state_dim)

    def reward(self, next_state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Minus the mean square of the state [..., S]; actions are free."""
        return -np.mean(next_state**2, axis=-1)

    def is_terminal(self, state: np.ndarray) -> np.ndarray:
        """Whether the state [..., S] has left the ball of `terminate_beyond`."""
        limit = self._config.terminate_beyond
        return np.linalg.norm(state, axis=-1) > (np.inf if limit is None else limit)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Each agent's window of the state [..., S], and its id, [..., N, O]."""
        return with_agent_id(state[..., self._window])
