"""A system written as formulas, and the environment that plays it: seeds, time limit and the agents' partial views.

The state is rounded to float32 after every step: the state that a model sees is the one from which the next is drawn.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Protocol

import numpy as np

from envs.base import EnvError, Observed, StepResult
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The law of the next state: W Gaussians. `weight` [W], `mean` [W,...,S], `std` of every coordinate."""

    weight: np.ndarray
    mean: np.ndarray
    std: float


class System(Protocol):
    """What `SystemEnv` plays. States are float64 [S], actions float64 [N,A] in [-1, 1].

    Where a shape says "...", any axes may come before, so that a batch is computed at once.
    """

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        ...

    def first_state(self, generator: np.random.Generator) -> np.ndarray:
        """Draw the state in which an episode begins."""
        ...

    def mixture(self, state: np.ndarray, action: np.ndarray) -> Mixture:
        """The exact law p(s' | s, a) for `state` [..., S] and the joint `action` [..., N, A]."""
        ...

    def next_state(self, state: np.ndarray, action: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw the next state from the law p(s' | s, a)."""
        ...

    def reward(self, next_state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The team's reward [...] for `action` [..., N, A], which led to `next_state` [..., S]."""
        ...

    def is_terminal(self, state: np.ndarray) -> np.ndarray:
        """Whether the task itself ends in `state` [..., S]: bool [...]."""
        ...

    def observe(self, state: np.ndarray) -> np.ndarray:
        """What each agent sees of `state` [..., S], [..., N, O]."""
        ...


@dataclasses.dataclass(frozen=True)
class SystemSnapshot:
    """A moment of an episode. `generator`: None before the first reset and after an episode's end."""

    state: np.ndarray
    step_count: int
    generator: np.random.Generator | None


class SystemEnv:
    """A `MultiAgentEnv` that plays `system`; each episode draws from one generator, made from its seed."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._generator: np.random.Generator | None = None
        self._state = np.zeros(system.spec.state_dim)
        self._step_count = 0

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        return self.system.spec

    def reset(self, seed: int) -> Observed:
        """Begin an episode whose chance is drawn from `seed`."""
        self._generator = np.random.default_rng(seed)
        self._step_count = 0
        return self._arrive(self.system.first_state(self._generator))

    def step(self, action: np.ndarray) -> StepResult:
        """One step of the system under `action` [N,A], clipped to [-1, 1]."""
        if self._generator is None:
            raise EnvError(f"environment {self.spec.env_id}: step() before reset(), or after the episode's end")
        controls = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        observed = self._arrive(self.system.next_state(self._state, controls, self._generator))
        self._step_count += 1
        reward = float(self.system.reward(self._state, controls))
        terminated = bool(self.system.is_terminal(self._state))
        truncated = self._step_count >= self.spec.episode_steps
        if terminated or truncated:
            self._generator = None
        return StepResult(*observed, reward, terminated, truncated, {})

    def snapshot(self) -> SystemSnapshot:
        """The state, the step and the generator: the noise to come is part of what comes back."""
        return SystemSnapshot(self._state, self._step_count, copy.deepcopy(self._generator))

    def restore(self, snapshot: SystemSnapshot) -> None:
        """Go back to `snapshot`; the same noise is drawn again."""
        self._state, self._step_count = snapshot.state, snapshot.step_count
        self._generator = copy.deepcopy(snapshot.generator)

    def render(self) -> np.ndarray:
        """Refused: a system of formulas has no picture."""
        raise EnvError(f"environment {self.spec.env_id} has no picture to render")

    def close(self) -> None:
        """Nothing to free."""

    def _arrive(self, state: np.ndarray) -> Observed:
        seen = state.astype(np.float32)
        self._state = seen.astype(np.float64)
        return Observed(self.system.observe(self._state).astype(np.float32), seen)


def circular_window(num_agents: int, state_dim: int, obs_size: int) -> np.ndarray:
    """[N, obs_size] the coordinates that each agent sees: neighbours on a circle, agents spread evenly on it."""
    starts = np.arange(num_agents) * state_dim // num_agents
    return (starts[:, None] + np.arange(obs_size)) % state_dim


def with_agent_id(own: np.ndarray) -> np.ndarray:
    """[..., N, X] -> [..., N, X+N]: append the one-hot agent id."""
    num_agents = own.shape[-2]
    identity = np.broadcast_to(np.eye(num_agents), (*own.shape[:-1], num_agents))
    return np.concatenate([own, identity], axis=-1)
