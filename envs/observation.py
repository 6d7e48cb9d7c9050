"""How the agents' observations [N,O] are made from what an environment gives.

`LocalObservation` pads what each agent sees to one size; `FullObservation` shows every agent the whole state.
Knows no simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class ObservationBuilder(Protocol):
    """Makes the observations of one environment; `sizes` and `appends_agent_id` are those of `EnvSpec`."""

    sizes: tuple[int, ...]
    appends_agent_id: bool

    def __call__(self, local: Sequence[np.ndarray], state: np.ndarray) -> np.ndarray:
        """Observations float32 [N,O] from each agent's own vector (in agent order) and the state [S]."""
        ...


class LocalObservation:
    """Each agent's own vector, zeros up to the longest, then the one-hot agent id that a shared actor needs."""

    appends_agent_id = True

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self._longest = max(sizes)
        self._template = np.zeros((len(sizes), self._longest + len(sizes)), np.float32)
        self._template[:, self._longest :] = np.eye(len(sizes), dtype=np.float32)

    def __call__(self, local: Sequence[np.ndarray], state: np.ndarray) -> np.ndarray:
        """Observations [N,O]; `state` is not looked at."""
        obs = self._template.copy()
        for agent, own in enumerate(local):
            obs[agent, : self.sizes[agent]] = own
        return obs


class FullObservation:
    """The whole state and the one-hot agent id, for every agent: the fully observed setting of the published results.

    With `standardize`, each agent's vector of length S+N has its own mean subtracted and is divided by its own standard
    deviation, as in the authors' published code (and HARL, whose wrapper it uses). The agent id is then part of the
    standardised vector, so `appends_agent_id` is False and `sizes` are S+N.
    """

    def __init__(self, state_dim: int, num_agents: int, *, standardize: bool) -> None:
        self.appends_agent_id = not standardize
        self.sizes = (state_dim + (num_agents if standardize else 0),) * num_agents
        self._standardize = standardize
        self._ids = np.eye(num_agents, dtype=np.float32)

    def __call__(self, local: Sequence[np.ndarray], state: np.ndarray) -> np.ndarray:
        """Observations [N,O]; `local` is not looked at."""
        obs = np.concatenate([np.broadcast_to(state, (len(self._ids), len(state))), self._ids], axis=1)
        if not self._standardize:
            return obs
        spread = obs.std(axis=1, keepdims=True)
        return (obs - obs.mean(axis=1, keepdims=True)) / np.maximum(spread, np.finfo(np.float32).tiny)
