"""An agent that looks at nothing: the floor that every policy is compared with, and the first data of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.types import EnvSpec


class RandomAgent:
    """Uniform actions in [-1, 1], zeros where padded, drawn from `generator`. Keeps the `Agent` protocol; no carry."""

    def __init__(self, spec: EnvSpec, generator: torch.Generator) -> None:
        self._mask = spec.action_mask().to(torch.float32)
        self._generator = generator

    def begin(self, obs: Tensor, state: Tensor) -> None:
        """Nothing to remember."""

    def act(self, carry: None, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, None]:
        """Actions [B,N,A] for `obs` [B,N,O], whatever they are."""
        uniform = torch.rand(obs.shape[0], *self._mask.shape, generator=self._generator)
        return (2.0 * uniform - 1.0) * self._mask, None
