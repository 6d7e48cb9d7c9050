"""What needs no learning: the true state, and the observations of all agents in a row in the place of a state."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from worldmodel.config import Config
from worldmodel.inference.auxiliary import AuxiliaryConfig, AuxiliaryObservation
from worldmodel.protocol import Auxiliary
from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec


class _Given(ABC):
    """What both have in common: the present observations are checked, nothing is drawn, and all samples are equal."""

    auxiliary: Auxiliary
    history_steps = 0

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec
        self._observation = AuxiliaryObservation(AuxiliaryConfig(self.auxiliary, 0, 1.0), spec)

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """What is given [M,B,D], M times the same."""
        self._observation.check(history, agent)
        given = self._given(history, state)
        return given.expand(num_samples, *given.shape)

    @abstractmethod
    def _given(self, history: Tensor, state: Tensor | None) -> Tensor:
        """What there is without inferring anything, [B,D]."""


@dataclasses.dataclass(frozen=True)
class OracleConfig(Config):
    """The true state: what inference could reach at best."""

    def build(self, spec: EnvSpec) -> Oracle:
        """The oracle of an environment."""
        return Oracle(spec)


class Oracle(_Given):
    """Keeps `StateInference`: every draw is the true state [B,S], which it must be given."""

    auxiliary: Auxiliary = "own"

    def _given(self, history: Tensor, state: Tensor | None) -> Tensor:
        if state is None:
            raise ValueError("state is None: an oracle must be given the true state [B,S]")
        check_shape("state", state, "B S", B=history.shape[0], S=self.spec.state_dim)
        return state


@dataclasses.dataclass(frozen=True)
class JointConfig(Config):
    """All agents' observations in a row: GlobeDiff's baseline `MAPPO (Joint)`, which infers nothing."""

    def build(self, spec: EnvSpec) -> JointObservation:
        """The joint observation of an environment."""
        return JointObservation(spec)


class JointObservation(_Given):
    """Keeps `StateInference` but for what it gives: not a state, but the present joint observation [M,B,N*O]."""

    auxiliary: Auxiliary = "joint"

    def _given(self, history: Tensor, state: Tensor | None) -> Tensor:
        return history[:, -1].flatten(1)
