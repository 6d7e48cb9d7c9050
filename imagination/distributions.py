"""How one action dimension is drawn: a diagonal Gaussian, or a Beta stretched over [-1, 1].

Every method works element by element, so that padded dimensions can be left out by whoever sums.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

EDGE = 1e-6
"""Beta samples keep this distance from the ends of (0, 1), where a density may be 0 or infinite."""


class ActionDistribution(Protocol):
    """A distribution over actions [...,A]; results have that shape, entries are independent."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw an action."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of each entry of `action`."""
        ...

    def entropy(self) -> Tensor:
        """Differential entropy of each entry, in nats."""
        ...

    @property
    def mean(self) -> Tensor:
        """Expected action."""
        ...

    @property
    def std(self) -> Tensor:
        """Standard deviation of the action."""
        ...


@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """A normal for each entry, unbounded: actions may leave [-1, 1] and are clamped only for the environment."""

    mean: Tensor
    std: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw an action."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of each entry of `action`."""
        z = (action - self.mean) / self.std
        return -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        """Differential entropy of each entry, in nats."""
        return self.std.log() + 0.5 * math.log(2 * math.pi * math.e)


@dataclasses.dataclass(frozen=True)
class StretchedBeta:
    """action = 2x - 1 with x ~ Beta(alpha, beta), both at least 1: bounded, and with a single peak."""

    alpha: Tensor
    beta: Tensor

    @property
    def mean(self) -> Tensor:
        """Expected action."""
        return 2 * self.alpha / (self.alpha + self.beta) - 1

    @property
    def std(self) -> Tensor:
        """Standard deviation of the action."""
        total = self.alpha + self.beta
        return 2 * (self.alpha * self.beta / (total + 1)).sqrt() / total

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw an action."""
        # torch.distributions draws from the global generator; only the sampler below it takes one as an argument.
        first = torch._standard_gamma(self.alpha, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
        second = torch._standard_gamma(self.beta, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
        return 2 * (first / (first + second)).clamp(EDGE, 1 - EDGE) - 1

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of each entry of `action`."""
        x = ((action + 1) / 2).clamp(EDGE, 1 - EDGE)
        shape = (self.alpha - 1) * x.log() + (self.beta - 1) * (1 - x).log()
        return shape - self._log_norm() - math.log(2)

    def entropy(self) -> Tensor:
        """Differential entropy of each entry, in nats."""
        total = self.alpha + self.beta
        return (
            self._log_norm()
            - (self.alpha - 1) * torch.digamma(self.alpha)
            - (self.beta - 1) * torch.digamma(self.beta)
            + (total - 2) * torch.digamma(total)
            + math.log(2)
        )

    def _log_norm(self) -> Tensor:
        """Log of the Beta function."""
        return torch.lgamma(self.alpha) + torch.lgamma(self.beta) - torch.lgamma(self.alpha + self.beta)
