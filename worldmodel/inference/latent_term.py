"""The part of GlobeDiff's Lemma 1 that the latent z brings in, C2 * eps_KL, in numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def diagonal_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(other_mean, other_std^2)) [*] in nats, all [*,Z]: eps_KL where p_phi(z|x) comes first."""
    ratio = (std.double() / other_std.double()).square()
    shift = ((mean.double() - other_mean.double()) / other_std.double()).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).sum(dim=-1)


def latent_constant(lipschitz: float, covariance: Tensor) -> float:
    """C2 in numbers: 4 Lip^2 times the largest eigenvalue of Cov p(z|x), `covariance` [Z,Z].

    The paper leaves C2 open. Talagrand's inequality gives W2^2(z) <= 2 lambda_max KL for a Gaussian p(z|x), a map
    z -> s of that Lipschitz constant multiplies it by Lip^2, and the triangle step (Eq. 36) by 2.
    """
    return 4 * lipschitz**2 * float(torch.linalg.eigvalsh(covariance.double())[-1])


def lipschitz_estimate(latents: Tensor, states: Tensor) -> float:
    """Largest |s - s'| / |z - z'| over pairs of `latents` [M,Z] and the `states` [M,S] that a sampler makes of them.

    The sampler must use the same noise for all rows. A lower bound of the Lipschitz constant that C2 asks for.

    Raises:
        ValueError: with fewer than two rows.
    """
    if latents.shape[0] < 2:
        raise ValueError(f"{latents.shape[0]} latent: expected at least 2")
    mode = "donot_use_mm_for_euclid_dist"  # matrix products lose small distances to cancellation
    moved = torch.cdist(states.double(), states.double(), compute_mode=mode)
    apart = torch.cdist(latents.double(), latents.double(), compute_mode=mode)
    return float((moved / apart).nan_to_num(nan=0.0).max())
