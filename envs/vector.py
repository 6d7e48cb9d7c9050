"""Several environments of one kind as one: what a collector steps.

A simulator that can step many worlds at once offers a `VecEnv` of its own through its config; any other environment is
built several times and stepped one after the other. What happens in a row depends on its seeds and actions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from envs.base import EnvConfig, EnvError, MultiAgentEnv, Observed, StepResult
from worldmodel.types import EnvSpec


class VecEnv(Protocol):
    """B environments, each with its own episode."""

    @property
    def spec(self) -> EnvSpec:
        """Of each; never changes."""
        ...

    @property
    def num_envs(self) -> int:
        """B."""
        ...

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Observed]:
        """Begin an episode in each of `rows`, with the seed of the same place in `seeds`."""
        ...

    def step(self, rows: Sequence[int], action: np.ndarray) -> list[StepResult]:
        """One env step of each of `rows` with `action` [R,N,A] in [-1, 1]; entries outside are clipped."""
        ...

    def close(self) -> None:
        """Free what the environments hold."""
        ...


@runtime_checkable
class VectorEnvConfig(EnvConfig, Protocol):
    """An env config whose simulator steps many worlds at once."""

    def build_vector(self, num_envs: int) -> VecEnv:
        """`num_envs` environments as one, each doing exactly what `build()`'s would."""
        ...


class SeparateEnvs:
    """A `VecEnv` of environments that know nothing of each other."""

    def __init__(self, envs: Sequence[MultiAgentEnv]) -> None:
        self._envs = list(envs)

    @property
    def spec(self) -> EnvSpec:
        """Of each."""
        return self._envs[0].spec

    @property
    def num_envs(self) -> int:
        """B."""
        return len(self._envs)

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Observed]:
        """Begin episodes."""
        return [self._envs[row].reset(seed) for row, seed in zip(rows, seeds, strict=True)]

    def step(self, rows: Sequence[int], action: np.ndarray) -> list[StepResult]:
        """One env step of each of `rows`, in their order."""
        return [self._envs[row].step(own) for row, own in zip(rows, action, strict=True)]

    def close(self) -> None:
        """Close every one."""
        for env in self._envs:
            env.close()


class Row:
    """One row of a `VecEnv` as an environment of its own."""

    def __init__(self, vector: VecEnv, row: int) -> None:
        self._vector = vector
        self._row = row

    @property
    def spec(self) -> EnvSpec:
        """As the vector's."""
        return self._vector.spec

    def reset(self, seed: int) -> Observed:
        """Begin an episode in this row."""
        return self._vector.reset([self._row], [seed])[0]

    def step(self, action: np.ndarray) -> StepResult:
        """One env step of this row with `action` [N,A]."""
        return self._vector.step([self._row], action[None])[0]

    def render(self) -> np.ndarray:
        """Refused: pictures are made by an environment that stands alone."""
        raise EnvError(f"environment {self.spec.env_id}: a row of a batch has no picture; render what build() gives")

    def close(self) -> None:
        """Nothing: the vector is closed as a whole."""


def build_vector(make_env: EnvConfig | Callable[[], MultiAgentEnv], num_envs: int) -> VecEnv:
    """`num_envs` environments of `make_env`, an env config or a function that makes one."""
    if isinstance(make_env, VectorEnvConfig):
        return make_env.build_vector(num_envs)
    build = make_env.build if isinstance(make_env, EnvConfig) else make_env
    return SeparateEnvs([build() for _ in range(num_envs)])
