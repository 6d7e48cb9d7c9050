"""What a perfectly trained denoiser would sample on the linear-Gaussian system, by matrix algebra.

Everything is linear, so the sample is sum_i G_i a_i + X noise; both solvers are followed on G and X. Actions are
taken for Gaussian, with the variance 1/3 of the uniform ones.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.toy.linear import LinearSystem

SIGMA_DATA = 0.5


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Of each agent: how much of its action's true effect arrives. And the samples' covariance [S,S]."""

    gains: list[float]
    covariance: np.ndarray


def stationary_std(system: LinearSystem, num_agents: int) -> np.ndarray:
    """[S] standard deviation of the state under uniform random actions."""
    pushes = sum(b @ b.T / 3 for b in map(system.action_gain, range(num_agents)))
    step = system.predictive_covariance() + pushes
    identity = np.eye(len(step))
    # A s for every unit vector s: the transition matrix, column by column.
    no_action = np.zeros((num_agents, system.action_gain(0).shape[1]))
    transition = np.stack([system.predictive_mean(s, no_action) for s in identity], axis=1)
    covariance = step
    for _ in range(1000):
        covariance = transition @ covariance @ transition.T + step
    return np.sqrt(np.diag(covariance))


def sampled_law(
    system: LinearSystem, masks: np.ndarray, sigmas: tuple[float, ...], solver: str, *, keep_noise: bool = False
) -> Sampled:
    """The sampler's law when its steps show the agents of `masks` [J,N] at `sigmas` (J + 1, the final 0 included).

    `solver` is euler, heun or multistep.
    """
    steps, num_agents = masks.shape
    effects = [system.action_gain(i) for i in range(num_agents)]  # [S,A] each
    scale = np.diag(SIGMA_DATA / stationary_std(system, num_agents))
    noise = scale @ system.predictive_covariance() @ scale
    size = len(noise)

    def denoise(x: np.ndarray, sigma: float, shown: np.ndarray) -> np.ndarray:
        """E[s' | x, shown actions] as a linear map of (all actions, starting noise), x being such a map as well."""
        hidden = sum((b @ b.T / 3 for b, seen in zip(effects, shown, strict=True) if not seen), np.zeros((size, size)))
        left = noise + scale @ hidden @ scale
        trust = left @ np.linalg.inv(left + sigma**2 * np.eye(size))
        mean = np.hstack([scale @ b * seen for b, seen in zip(effects, shown, strict=True)] + [np.zeros((size, size))])
        return mean + trust @ (x - mean)

    columns = sum(b.shape[1] for b in effects)
    x = np.hstack([np.zeros((size, columns)), sigmas[0] * np.eye(size)])
    slope, before = x / sigmas[0], x
    for j in range(steps):
        sigma, following = sigmas[j], sigmas[j + 1]
        grows = masks[j].sum() > (masks[j - 1].sum() if j > 0 else 0)
        denoised = denoise(x, sigma, masks[j])
        if not (keep_noise and grows):
            slope = (x - denoised) / sigma
        guess = denoised + following * slope
        if solver == "multistep" and 0 < j < steps - 1 and not grows:
            ratio = np.log(sigma / following) / np.log(sigmas[j - 1] / sigma)
            guess = guess + (1 - following / sigma) * ratio / 2 * (denoised - before)
        before = denoised
        if solver == "heun" and following > 0 and not (keep_noise and grows):
            ahead = (guess - denoise(guess, following, masks[j])) / following
            guess = x + (following - sigma) * (slope + ahead) / 2
        x = guess
    x = np.linalg.inv(scale) @ x
    arrived = np.split(x[:, :columns], num_agents, axis=1)
    gains = [float((b * g).sum() / (b * b).sum()) for b, g in zip(effects, arrived, strict=True)]
    return Sampled(gains, x[:, columns:] @ x[:, columns:].T)
