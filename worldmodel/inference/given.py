"""What needs no learning: the true state, and the observations of all agents in a row in the place of a state."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from worldmodel.config import Config
from worldmodel.inference.auxiliary import AuxiliaryConfig, AuxiliaryObservation
from worldmodel.protocol import Auxiliary
from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class OracleConfig(Config):
    """The true state: what inference could reach at best."""

    def build(self, spec: EnvSpec) -> Oracle:
        """The oracle of an environment."""
        return Oracle(spec)


class Oracle:
    """Keeps `StateInference`: every draw is the true state, which it must be given."""

    auxiliary: Auxiliary = "own"
    history_steps = 0

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec
        self._observation = AuxiliaryObservation(AuxiliaryConfig("own", 0, 1.0), spec)

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """`state` [B,S], M times."""
        self._observation.check(history, agent)
        if state is None:
            raise ValueError("state is None: an oracle must be given the true state [B,S]")
        check_shape("state", state, "B S", B=history.shape[0], S=self.spec.state_dim)
        return state.expand(num_samples, *state.shape)


@dataclasses.dataclass(frozen=True)
class JointConfig(Config):
    """All agents' observations in a row: GlobeDiff's baseline `MAPPO (Joint)`, which infers nothing."""

    def build(self, spec: EnvSpec) -> JointObservation:
        """The joint observation of an environment."""
        return JointObservation(spec)


class JointObservation:
    """Keeps `StateInference` but for what it gives: not a state, but the joint observation [M,B,N*O]."""

    auxiliary: Auxiliary = "joint"
    history_steps = 0

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec
        self._observation = AuxiliaryObservation(AuxiliaryConfig("joint", 0, 1.0), spec)

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """The present observations [M,B,N*O], M times the same."""
        self._observation.check(history, agent)
        joint = history[:, -1].flatten(1)
        return joint.expand(num_samples, *joint.shape)
