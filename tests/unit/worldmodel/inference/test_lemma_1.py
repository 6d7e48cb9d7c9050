"""GlobeDiff's Lemma 1 on chains that are run with the best prediction there is: what its constant leaves out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldmodel.inference.bounds import lemma_1
from worldmodel.inference.gaussian_mixture import gaussian_w2_squared, sample_moments

LINEAR = torch.linspace(1e-4, 0.02, 5, dtype=torch.float64)
COSINE = torch.tensor([0.10129408, 0.27954385, 0.47363535, 0.72405237, 0.999], dtype=torch.float64)


def ideal_sampler(
    betas: Tensor, mean: float, variance: float, draws: int, last_noise: bool = False
) -> tuple[Tensor, Tensor]:
    """The chain of Eq. 24 with the best prediction of eps for data N(mean, variance): samples [M,1], errors [K].

    For such data E[eps | s^k] is linear in s^k; its error is measured on the forward chain.
    """
    generator = torch.Generator().manual_seed(7)
    alpha = 1 - betas
    abar = alpha.cumprod(dim=0)

    def predict(noisy: Tensor, k: int) -> Tensor:
        spread = abar[k] * variance + 1 - abar[k]
        return (1 - abar[k]).sqrt() * (noisy - abar[k].sqrt() * mean) / spread

    errors = []
    for k in range(len(betas)):
        data = mean + math.sqrt(variance) * torch.randn(draws, 1, generator=generator, dtype=torch.float64)
        eps = torch.randn(draws, 1, generator=generator, dtype=torch.float64)
        noisy = abar[k].sqrt() * data + (1 - abar[k]).sqrt() * eps
        errors.append((predict(noisy, k) - eps).square().mean())
    state = torch.randn(draws, 1, generator=generator, dtype=torch.float64)
    for k in reversed(range(len(betas))):
        noise = torch.randn(draws, 1, generator=generator, dtype=torch.float64)
        added = betas[k].sqrt() * noise if k > 0 or last_noise else 0.0
        state = (state - betas[k] / (1 - abar[k]).sqrt() * predict(state, k)) / alpha[k].sqrt() + added
    return state, torch.stack(errors)


def w2_to(samples: Tensor, mean: float, variance: float) -> float:
    """A linear chain of Gaussians is Gaussian, so moments are enough."""
    law = (torch.tensor([mean]), torch.tensor([[variance]]))
    return float(gaussian_w2_squared(*sample_moments(samples), *law))


def test_lemma_1_holds_by_far_under_cosine_betas() -> None:
    samples, errors = ideal_sampler(COSINE, mean=1.0, variance=0.5, draws=20_000)
    check = lemma_1(w2_to(samples, 1.0, 0.5), COSINE, errors)
    assert check.holds
    assert check.conditions_hold
    assert check.left < 1 < 1000 < check.right


def test_lemma_1_fails_where_the_forward_chain_ends_far_from_noise() -> None:
    """A perfect prediction, but the sampler starts elsewhere than the forward chain ends."""
    samples, errors = ideal_sampler(LINEAR, mean=1.0, variance=1.0, draws=20_000)
    check = lemma_1(w2_to(samples, 1.0, 1.0), LINEAR, errors, constants="worst")
    assert check.left == pytest.approx(0.95063**2, rel=0.1)  # the mean starts, and stays, at 0.05 of where it should be
    assert not check.holds
    assert not check.conditions[2].holds
    assert "abar_K = 0.95 <= 0.01" in check.conditions[2].text


def test_lemma_1_fails_with_noise_at_the_last_step() -> None:
    """Eq. 11 taken literally: a point, predicted without any error, comes out with variance beta_1."""
    samples, errors = ideal_sampler(COSINE, mean=0.5, variance=0.0, draws=20_000, last_noise=True)
    check = lemma_1(w2_to(samples, 0.5, 0.0), COSINE, errors)
    assert float(errors.max()) < 1e-12
    assert check.left == pytest.approx(0.1013, rel=0.05)
    assert not check.holds
    quiet, _ = ideal_sampler(COSINE, mean=0.5, variance=0.0, draws=100)
    assert w2_to(quiet, 0.5, 0.0) < 1e-12


def test_lemma_1_adds_the_latent_term_and_shows_all_constants() -> None:
    check = lemma_1(1.0, COSINE, 0.1, epsilon_kl=0.5, c2=3.0)
    assert check.right == pytest.approx(0.1 * 11_714.8 + 1.5, rel=1e-4)
    assert check.terms["C1 printed"] == pytest.approx(2343, rel=1e-3)
    assert check.terms["delta^2"] == pytest.approx(0.1)
    assert {"C1 K delta^2 exact", "C1 K delta^2 worst"} <= check.terms.keys()
    with pytest.raises(ValueError, match="expected 5 numbers"):
        lemma_1(1.0, COSINE, torch.ones(3))


def test_lemma_1_says_where_the_printed_constant_does_not_reach() -> None:
    printed = [condition.holds for condition in lemma_1(0.0, LINEAR, 1.0).conditions]
    assert printed == [True, False, False]
    first_step_only = torch.tensor([0, 0, 0, 0, 1.0])
    assert not lemma_1(0.0, COSINE, first_step_only).conditions[0].holds
