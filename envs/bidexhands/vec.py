"""Many environments of the port in the toolkit's contract: stepped in threads, observed at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.base import Observed, StepResult
from envs.bidexhands.batch import NUM_AGENTS, BiDexHandsBatch
from envs.bidexhands.observation import Observer
from envs.observation import FullObservation, LocalObservation, ObservationBuilder
from envs.pettingzoo import ObsMode
from worldmodel.types import EnvSpec


def observation_builder(observer: Observer, obs_mode: ObsMode, standardize_obs: bool) -> ObservationBuilder:
    """What agents are shown of `observer`'s observations and state."""
    if obs_mode == "local":
        return LocalObservation((observer.obs_size,) * NUM_AGENTS)
    return FullObservation(observer.state_size, NUM_AGENTS, standardize=standardize_obs)


class BiDexHandsVec:
    """A `VecEnv` on a batch: the same numbers as `BiDexHandsConfig.build` gives row by row."""

    def __init__(self, batch: BiDexHandsBatch, spec: EnvSpec, builder: ObservationBuilder) -> None:
        self._batch = batch
        self._spec = spec
        self._builder = builder

    @property
    def spec(self) -> EnvSpec:
        """Of each environment."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """B."""
        return self._batch.num_envs

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Observed]:
        """Begin episodes."""
        obs, state = self._batch.reset(rows, seeds)
        return [Observed(self._builder(list(own), whole), whole) for own, whole in zip(obs, state, strict=True)]

    def step(self, rows: Sequence[int], action: np.ndarray) -> list[StepResult]:
        """One control step of each of `rows`, side by side."""
        result = self._batch.step(rows, action.astype(np.float32, copy=False))  # as the action space has it
        info = {"success": result.success.astype(float), **result.terms}
        return [
            StepResult(
                self._builder(list(result.obs[row]), result.state[row]),
                result.state[row],
                float(result.reward[row]),
                bool(result.terminated[row]),
                bool(result.truncated[row]),
                {name: float(values[row]) for name, values in info.items()},
            )
            for row in range(len(rows))
        ]

    def close(self) -> None:
        """End the threads."""
        self._batch.close()
