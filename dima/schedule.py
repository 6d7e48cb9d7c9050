"""Noise levels: the ladders that the sampler walks down, and the levels that training draws.

Pure functions of numbers; knows nothing of networks or agents.
"""

from __future__ import annotations

import torch
from torch import Tensor


def karras_sigmas(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> tuple[float, ...]:
    """The `num_steps` noise levels from `sigma_max` down to `sigma_min`, then 0 (EDM, arXiv 2206.00364, Eq. 5).

    Computed in double precision on the host, so that the ladder is known before any tensor is made. A single step
    starts at `sigma_max` (the formula would divide by zero).

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and num_steps >= 1.
    """
    if num_steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"num_steps={num_steps}, sigma_min={sigma_min}, sigma_max={sigma_max}:"
            " expected at least one step and 0 < sigma_min < sigma_max"
        )
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    gaps = max(num_steps - 1, 1)
    return (*((top + i / gaps * (bottom - top)) ** rho for i in range(num_steps)), 0.0)


def two_phase_sigmas(
    num_reveal_steps: int, num_refine_steps: int, sigma_min: float, reveal_sigma: float, sigma_max: float, rho: float
) -> tuple[float, ...]:
    """Karras levels from `sigma_max` to `reveal_sigma`, then `num_refine_steps` more down to `sigma_min`, then 0.

    The agents are shown one after the other in the first phase, so that the second refines with everybody shown. A
    first phase of one level is `sigma_max` itself; the second then sets out from there.

    Raises:
        ValueError: unless 0 < sigma_min < reveal_sigma < sigma_max and both phases have at least one level.
    """
    if num_refine_steps < 1 or sigma_min >= reveal_sigma:
        raise ValueError(
            f"num_refine_steps={num_refine_steps}, sigma_min={sigma_min}, reveal_sigma={reveal_sigma}:"
            " expected at least one step and sigma_min < reveal_sigma"
        )
    reveal = karras_sigmas(num_reveal_steps, reveal_sigma, sigma_max, rho)[:-1]
    return reveal + karras_sigmas(num_refine_steps + 1, sigma_min, reveal[-1], rho)[1:]


def default_num_denoising_steps(num_agents: int) -> int:
    """Twice the number of agents up to two agents, else as many as agents (DIMA, Table 4)."""
    return 2 * num_agents if num_agents <= 2 else num_agents


def draw_training_sigmas(
    batch_size: int,
    generator: torch.Generator,
    *,
    log_mean: float = -0.4,
    log_std: float = 1.2,
    sigma_min: float = 0.002,
    sigma_max: float = 20.0,
) -> Tensor:
    """[B] noise levels with ln(sigma) ~ N(log_mean, log_std^2), clipped to [sigma_min, sigma_max].

    Mean and standard deviation are DIMA's Eq. 18; the clip is DIAMOND's (arXiv 2405.12399) and the authors' code's.
    """
    log_sigma = torch.randn(batch_size, generator=generator, device=generator.device) * log_std + log_mean
    return log_sigma.exp().clamp(sigma_min, sigma_max)
