"""An agent with correlated noise: actions that keep a direction for a while carry a body further than white noise."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from worldmodel.types import EnvSpec, TensorStruct


@dataclasses.dataclass(frozen=True)
class NoiseCarry(TensorStruct):
    """The noise [B,N,A] of the last step, before clipping."""

    noise: Tensor


class OrnsteinUhlenbeckAgent:
    """Every action is an Ornstein-Uhlenbeck process with mean 0, clipped to [-1, 1]. Keeps the `Agent` protocol.

    Args:
        spec: of the environment.
        std: stationary standard deviation of the noise before clipping.
        time_steps: env steps after which the correlation has fallen to 1/e.
        generator: where the noise is drawn from.
    """

    def __init__(self, spec: EnvSpec, *, std: float, time_steps: float, generator: torch.Generator) -> None:
        if std < 0 or time_steps <= 0:
            raise ValueError(f"std = {std}, time_steps = {time_steps}: expected std >= 0 and time_steps > 0")
        self._mask = spec.action_mask().to(torch.float32)
        self._std = std
        self._memory = math.exp(-1.0 / time_steps)
        self._generator = generator

    def begin(self, obs: Tensor, state: Tensor) -> NoiseCarry:
        """Noise in its stationary law, for B environments: `obs` [B,N,O]."""
        return NoiseCarry(self._std * self._normal(obs.shape[0]))

    def act(self, carry: NoiseCarry, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, NoiseCarry]:
        """Actions [B,N,A]; rows with `is_first` start anew from the stationary law."""
        fresh = self._std * self._normal(obs.shape[0])
        following = self._memory * carry.noise + math.sqrt(1.0 - self._memory**2) * fresh
        noise = torch.where(is_first[:, None, None], fresh, following)
        return noise.clamp(-1.0, 1.0) * self._mask, NoiseCarry(noise)

    def _normal(self, batch: int) -> Tensor:
        return torch.randn(batch, *self._mask.shape, generator=self._generator)
