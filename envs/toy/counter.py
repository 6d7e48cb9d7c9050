"""An environment that counts: its state names its episode and step, so that tests can see whether data kept its order.

After the dummy environment of DreamerV3. State [seed // 2^16, seed % 2^16, step, sum of the last joint action].
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.base import EnvError, Observed, StepResult
from worldmodel.config import Config
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class CounterConfig(Config):
    """Counts the steps of episodes of known length."""

    num_agents: int
    """Agent i has i+1 actions and sees i+1 copies of the step, to exercise padding."""
    shortest_episode: int
    """Episodes of even seed terminate after a number of steps between this and `episode_steps`."""
    episode_steps: int
    """Episodes of odd seed are truncated here."""

    def validate(self) -> None:
        """Refuse lengths that are out of order."""
        self.require(self.num_agents >= 1, "num_agents", "at least 1")
        expected = f"1 to episode_steps = {self.episode_steps}"
        self.require(1 <= self.shortest_episode <= self.episode_steps, "shortest_episode", expected)

    def build(self) -> CounterEnv:
        """The environment that counts."""
        return CounterEnv(self)


class CounterEnv:
    """State [seed // 2^16, seed % 2^16, step, action sum]; exact but for the last. Reward: the step taken, from 1."""

    def __init__(self, config: CounterConfig) -> None:
        self._config = config
        self._seed: int | None = None
        self._step = 0
        sizes = tuple(range(1, config.num_agents + 1))
        self._spec = EnvSpec(
            env_id=f"toy/counter-{config.num_agents}",
            num_agents=config.num_agents,
            state_dim=4,
            obs_sizes=sizes,
            action_sizes=sizes,
            episode_steps=config.episode_steps,
            appends_agent_id=True,
        )
        self._obs_mask = self._spec.obs_mask().numpy()
        self._action_mask = self._spec.action_mask().numpy()

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        return self._spec

    def length(self, seed: int) -> int:
        """Steps in the episode that begins with `seed`."""
        if seed % 2 == 1:
            return self._config.episode_steps
        span = self._config.episode_steps - self._config.shortest_episode + 1
        return self._config.shortest_episode + (seed // 2) % span

    def reset(self, seed: int) -> Observed:
        """Begin to count at 0. `seed` below 2^32, so that both halves are exact."""
        self._seed, self._step = seed, 0
        return self._observed(seed, 0.0)

    def step(self, action: np.ndarray) -> StepResult:
        """Count one more."""
        if self._seed is None:
            raise EnvError(f"environment {self._spec.env_id}: step() before reset(), or after the episode's end")
        seed = self._seed
        self._step += 1
        controls = np.clip(action, -1.0, 1.0) * self._action_mask
        observed = self._observed(seed, float(controls.sum()))
        ended = self._step >= self.length(seed)
        if ended:
            self._seed = None
        return StepResult(*observed, float(self._step), ended and seed % 2 == 0, ended and seed % 2 == 1, {})

    def render(self) -> np.ndarray:
        """Refused: a count has no picture."""
        raise EnvError(f"environment {self._spec.env_id} has no picture to render")

    def close(self) -> None:
        """Nothing to free."""

    def _observed(self, seed: int, action_sum: float) -> Observed:
        agents = self._spec.num_agents
        own = np.full((agents, max(self._spec.obs_sizes)), self._step, np.float32)
        obs = np.concatenate([own, np.eye(agents, dtype=np.float32)], axis=1) * self._obs_mask
        state = np.array([seed // 2**16, seed % 2**16, self._step, action_sum], np.float32)
        return Observed(obs.astype(np.float32), state)
