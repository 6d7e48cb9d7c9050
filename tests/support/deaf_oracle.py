"""A perfect model but for one thing: it does not hear what the agents do."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.toy.oracle import OracleModel, OracleState
from worldmodel.types import Prediction


class DeafOracle(OracleModel):
    """The law of the system under actions of zero, whatever the actions are."""

    def step(self, state: OracleState, action: Tensor, *, generator: torch.Generator) -> tuple[OracleState, Prediction]:
        """A draw from the law without actions."""
        return super().step(state, torch.zeros_like(action), generator=generator)
