"""A linear-Gaussian team: s' = A s + sum_i B_i a_i + noise, every moment of the next state known.

What a learned model should recover: the gain B_i of each agent's action, and the covariance of the noise.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.toy.system import Mixture, SystemEnv, circular_window, with_agent_id
from worldmodel.config import Config
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    """A linear-Gaussian system drawn from `system_seed`."""

    num_agents: int
    state_dim: int
    action_dim: int
    """Actions of each agent."""
    obs_size: int
    """Coordinates of the state that each agent sees."""
    memory: float
    """A is a random rotation times this number, which must be below 1 to keep the state bounded."""
    gain: float
    """Length of every column of every B_i: how far one action, at 1, moves the state."""
    noise_std: float
    """Standard deviation of the noise in each coordinate."""
    action_cost: float
    """Weight of the actions' squares in the reward."""
    terminate_beyond: float | None
    """The episode terminates when the state's length exceeds this; null: never."""
    episode_steps: int
    system_seed: int
    """Draws A and B; not the seed of an episode."""

    def validate(self) -> None:
        """Refuse sizes below 1 and a state that grows without bound."""
        for name in ("num_agents", "state_dim", "action_dim", "episode_steps"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(1 <= self.obs_size <= self.state_dim, "obs_size", f"1 to state_dim = {self.state_dim}")
        self.require(0 <= self.memory < 1, "memory", "at least 0 and below 1")
        self.require(self.noise_std >= 0, "noise_std", "at least 0")
        self.require(self.terminate_beyond is None or self.terminate_beyond > 0, "terminate_beyond", "null or above 0")

    def build(self) -> SystemEnv:
        """The environment that plays this system."""
        return SystemEnv(LinearSystem(self))


class LinearSystem:
    """s' ~ N(A s + sum_i B_i a_i, noise_std^2 I); reward -|s'|^2 / S - action_cost * mean(a^2).

    Episodes begin in the stationary law that the noise alone would reach, N(0, noise_std^2 / (1 - memory^2) I), plus a
    unit normal draw, so that there is something to bring back to zero.
    """

    def __init__(self, config: LinearConfig) -> None:
        self._config = config
        draw = np.random.default_rng(config.system_seed)
        rotation, _ = np.linalg.qr(draw.standard_normal((config.state_dim, config.state_dim)))
        self._transition = config.memory * rotation  # A [S,S]
        gain = draw.standard_normal((config.num_agents, config.state_dim, config.action_dim))
        self._gain = config.gain * gain / np.linalg.norm(gain, axis=1, keepdims=True)  # B_i [N,S,A]
        self._window = circular_window(config.num_agents, config.state_dim, config.obs_size)
        self._spec = EnvSpec(
            env_id=f"toy/linear-{config.num_agents}x{config.action_dim}",
            num_agents=config.num_agents,
            state_dim=config.state_dim,
            obs_sizes=(config.obs_size,) * config.num_agents,
            action_sizes=(config.action_dim,) * config.num_agents,
            episode_steps=config.episode_steps,
            appends_agent_id=True,
        )

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        return self._spec

    def predictive_mean(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """E[s' | s, a] [..., S] for `state` [..., S] and the joint `action` [..., N, A]."""
        return state @ self._transition.T + np.einsum("nsa,...na->...s", self._gain, action)

    def predictive_covariance(self) -> np.ndarray:
        """Cov[s' | s, a] [S,S], the same for every state and action."""
        return self._config.noise_std**2 * np.eye(self._config.state_dim)

    def mixture(self, state: np.ndarray, action: np.ndarray) -> Mixture:
        """The exact law of s' for `state` [..., S] and the joint `action` [..., N, A]: one Gaussian."""
        return Mixture(np.ones(1), self.predictive_mean(state, action)[None], self._config.noise_std)

    def action_gain(self, agent: int) -> np.ndarray:
        """B_i [S,A]: by how much the mean next state moves for each action of `agent`."""
        return self._gain[agent].copy()

    def first_state(self, generator: np.random.Generator) -> np.ndarray:
        """Draw a first state [S]."""
        settled = self._config.noise_std / np.sqrt(1 - self._config.memory**2)
        return np.hypot(1.0, settled) * generator.standard_normal(self._config.state_dim)

    def next_state(self, state: np.ndarray, action: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw s' [S]."""
        noise = self._config.noise_std * generator.standard_normal(self._config.state_dim)
        return self.predictive_mean(state, action) + noise

    def reward(self, next_state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Minus the mean square of the state [..., S] and of the actions [..., N, A], the latter weighted."""
        return -(np.mean(next_state**2, axis=-1) + self._config.action_cost * np.mean(action**2, axis=(-2, -1)))

    def is_terminal(self, state: np.ndarray) -> np.ndarray:
        """Whether the state [..., S] has left the ball of `terminate_beyond`."""
        limit = self._config.terminate_beyond
        return np.linalg.norm(state, axis=-1) > (np.inf if limit is None else limit)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Each agent's window of the state [..., S], and its id, [..., N, O]."""
        return with_agent_id(state[..., self._window])
