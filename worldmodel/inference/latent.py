"""A latent variable that tells apart the states behind one observation: prior p(z | x), posterior q(z | x, s), KL.

GlobeDiff, Eq. 3 and 4, Table 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.networks import mlp

_LOG_STD_RANGE = (-5.0, 2.0)
"""Keeps a KL finite; not in the paper."""


class Gaussian(NamedTuple):
    """Independent Gaussians: `mean` and `log_std` [B,Z]."""

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A draw [B,Z] from unit `noise` [B,Z]."""
        return self.mean + self.log_std.exp() * noise


class LatentNetwork(nn.Module):
    """[B,Y] -> a Gaussian over z [B,Z]."""

    def __init__(self, in_dim: int, latent_dim: int, hidden_dim: int, num_layers: int) -> None:
        """`num_layers` hidden layers of `hidden_dim` with ReLU (Table 3: 3 of 1024)."""
        super().__init__()
        self.net = mlp([in_dim, *[hidden_dim] * num_layers, 2 * latent_dim])

    def forward(self, y: Tensor) -> Gaussian:
        """Mean and log standard deviation."""
        mean, log_std = self.net(y).chunk(2, dim=-1)
        return Gaussian(mean, log_std.clamp(*_LOG_STD_RANGE))


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) in nats [B], summed over z."""
    ratio = (2 * (q.log_std - p.log_std)).exp()
    distance = ((q.mean - p.mean) * (-p.log_std).exp()).square()
    return 0.5 * (ratio + distance - 1 - 2 * (q.log_std - p.log_std)).sum(dim=-1)


def unit_noise(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) of this shape with the type and device of `like`."""
    return torch.randn(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)
