"""Gaussians and mixtures of Gaussians in closed form: distances between laws, spread, and the error to the next mode.

Everything is computed in float64. Knows nothing of models or environments; "*" stands for any axes, often a batch of
observations, each of which has a law of its own.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """sum_j w_j N(mean_j, covariance_j) over states [S], for every observation in "*".

    Raises:
        ValueError: when shapes disagree, or the weights are not positive with sum 1.
    """

    weight: Tensor
    """[J], the same for every observation."""
    mean: Tensor
    """[J,*,S]"""
    covariance: Tensor
    """[J,S,S], the same for every observation."""

    def __post_init__(self) -> None:
        """Convert to float64 and check."""
        for name in ("weight", "mean", "covariance"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).double())
        modes, dim = self.mean.shape[0], self.mean.shape[-1]
        if self.mean.ndim < 2 or self.weight.shape != (modes,) or self.covariance.shape != (modes, dim, dim):
            raise ValueError(
                f"weight {list(self.weight.shape)}, mean {list(self.mean.shape)} and covariance "
                f"{list(self.covariance.shape)}: expected [J], [J,*,S] and [J,S,S]"
            )
        if not bool((self.weight > 0).all()) or abs(float(self.weight.sum()) - 1) > 1e-6:
            raise ValueError(f"weight = {self.weight.tolist()}: expected positive numbers with sum 1")

    @classmethod
    def isotropic(cls, weight: Tensor, mean: Tensor, std: float) -> GaussianMixture:
        """Modes of equal spread: `weight` [J], `mean` [J,*,S], `std` of every coordinate, above 0."""
        modes, dim = mean.shape[0], mean.shape[-1]
        return cls(weight, mean, std**2 * torch.eye(dim, dtype=torch.float64).expand(modes, dim, dim))

    @property
    def num_modes(self) -> int:
        """J."""
        return self.weight.shape[0]

    @property
    def state_dim(self) -> int:
        """S."""
        return self.mean.shape[-1]

    def traces(self) -> Tensor:
        """Tr Sigma_j [J]: the mean square distance of a mode's states from its centre."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """E[s|x] [*,S] and Cov[s|x] [*,S,S]; the trace of the latter is Var(s|x)."""
        mean = torch.einsum("j,j...s->...s", self.weight, self.mean)
        apart = self.mean - mean
        between = torch.einsum("j,j...s,j...t->...st", self.weight, apart, apart)
        return mean, between + torch.einsum("j,jst->st", self.weight, self.covariance)

    def separation(self) -> float:
        """D, the smallest distance between two centres, over all observations; infinite with one mode."""
        pairs = torch.combinations(torch.arange(self.num_modes)).T
        if pairs.numel() == 0:
            return float("inf")
        return float((self.mean[pairs[0]] - self.mean[pairs[1]]).norm(dim=-1).min())

    def nearest_mode_error(self, samples: Tensor) -> Tensor:
        """Square distance of `samples` [M,*,S] from the nearest centre: min_j |s - mean_j|^2, [M,*]."""
        errors = [(samples.double() - centre).square().sum(dim=-1) for centre in self.mean]
        return torch.stack(errors).amin(dim=0)

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw [M,*,S] in float64; `generator` on the CPU."""
        shape = (num_samples, *self.mean.shape[1:-1])
        count = torch.Size(shape).numel()
        mode = torch.multinomial(self.weight, count, replacement=True, generator=generator).reshape(shape)
        noise = torch.randn(*shape, self.state_dim, generator=generator, dtype=torch.float64)
        centre = torch.einsum(
            "m...j,j...s->m...s", torch.nn.functional.one_hot(mode, self.num_modes).double(), self.mean
        )
        root = torch.linalg.cholesky(self.covariance)[mode]
        return centre + torch.einsum("...st,...t->...s", root, noise)


def gaussian_w2_squared(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """Square 2-Wasserstein distance [*] of two Gaussians, means [*,S] and covariances [*,S,S].

    |m - m'|^2 + Tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2). For two laws that are no Gaussians but have these moments it is a
    lower bound of their distance (Gelbrich 1990).
    """
    root = _square_root(covariance.double())
    cross = _square_root(root @ other_covariance.double() @ root)
    spread = covariance.double() + other_covariance.double() - 2 * cross
    apart = (mean.double() - other_mean.double()).square().sum(dim=-1)
    return apart + spread.diagonal(dim1=-2, dim2=-1).sum(dim=-1).clamp(min=0)


def sample_moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [*,S] and covariance [*,S,S] of `samples` [M,*,S] along the first axis; the latter unbiased.

    Raises:
        ValueError: with fewer than two samples.
    """
    num = samples.shape[0]
    if num < 2:
        raise ValueError(f"{num} sample: expected at least 2, one has no spread")
    values = samples.double()
    mean = values.mean(dim=0)
    apart = values - mean
    return mean, torch.einsum("m...s,m...t->...st", apart, apart) / (num - 1)


def _square_root(matrix: Tensor) -> Tensor:
    """Symmetric root of symmetric positive semi-definite matrices [*,S,S]."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT
