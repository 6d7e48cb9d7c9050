"""Distances, moments and nearest modes against samples and against cases that are known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.inference.gaussian_mixture import GaussianMixture, gaussian_w2_squared, sample_moments
from worldmodel.inference.latent_term import diagonal_kl, latent_constant, lipschitz_estimate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_gaussian(dim: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(dim, generator=generator, dtype=torch.float64), root @ root.T


def test_w2_in_one_dimension_is_the_distance_of_sorted_samples() -> None:
    generator = seeded()
    draws = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    first, second = 0.5 + 1.5 * draws[0], -1.0 + 0.4 * draws[1]
    sorted_distance = (first.sort().values - second.sort().values).square().mean()
    closed = gaussian_w2_squared(
        torch.tensor([0.5]), torch.tensor([[2.25]]), torch.tensor([-1.0]), torch.tensor([[0.16]])
    )
    assert float(closed) == pytest.approx(1.5**2 + 1.1**2, rel=1e-6)
    assert float(sorted_distance) == pytest.approx(float(closed), rel=0.02)


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_w2_is_zero_for_equal_laws_symmetric_and_that_of_the_linear_map(seed: int, dim: int) -> None:
    generator = seeded(seed)
    mean, covariance = random_gaussian(dim, generator)
    other_mean, other_covariance = random_gaussian(dim, generator)
    forth = float(gaussian_w2_squared(mean, covariance, other_mean, other_covariance))
    back = float(gaussian_w2_squared(other_mean, other_covariance, mean, covariance))
    assert forth == pytest.approx(back, rel=1e-6, abs=1e-6)
    assert float(gaussian_w2_squared(mean, covariance, mean, covariance)) == pytest.approx(0, abs=1e-6)
    # A symmetric positive map is the optimal one (Brenier), so the distance is what it moves.
    _, root = random_gaussian(dim, generator)
    mapped = root @ covariance @ root
    moved = (root - torch.eye(dim)) @ covariance @ (root - torch.eye(dim))
    distance = float(gaussian_w2_squared(mean, covariance, mean, mapped))
    assert distance == pytest.approx(float(moved.trace()), rel=1e-5, abs=1e-5)


def mixture() -> GaussianMixture:
    """Two observations, three modes, unequal weights and spreads."""
    mean = torch.randn(3, 2, 4, generator=seeded(1), dtype=torch.float64) * 5
    roots = torch.randn(3, 4, 4, generator=seeded(2), dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), mean, roots @ roots.mT + 0.1 * torch.eye(4))


def test_samples_of_a_mixture_have_its_moments() -> None:
    law = mixture()
    samples = law.sample(100_000, seeded())
    mean, covariance = sample_moments(samples)
    expected_mean, expected_covariance = law.moments()
    assert samples.shape == (100_000, 2, 4)
    scale = float(expected_covariance.diagonal(dim1=-2, dim2=-1).max())
    torch.testing.assert_close(mean, expected_mean, atol=5 * math.sqrt(scale / 100_000), rtol=0)
    torch.testing.assert_close(covariance, expected_covariance, atol=0.03 * scale, rtol=0)


def test_the_nearest_mode_and_the_separation_are_those_of_a_loop() -> None:
    law = mixture()
    samples = law.sample(50, seeded())
    error = law.nearest_mode_error(samples)
    for row in range(50):
        for x in range(2):
            each = [float((samples[row, x] - law.mean[j, x]).norm()) ** 2 for j in range(3)]
            assert float(error[row, x]) == pytest.approx(min(each))
    pairs = [float((law.mean[i, x] - law.mean[j, x]).norm()) for i in range(3) for j in range(i) for x in range(2)]
    assert law.separation() == pytest.approx(min(pairs))
    torch.testing.assert_close(law.traces(), torch.stack([c.trace() for c in law.covariance]))


def test_one_mode_is_infinitely_separated() -> None:
    law = GaussianMixture.isotropic(torch.ones(1), torch.zeros(1, 3), 0.5)
    assert law.separation() == float("inf")
    assert (law.num_modes, law.state_dim) == (1, 3)
    assert law.traces().tolist() == [0.75]


@pytest.mark.parametrize(
    ("weight", "mean", "covariance", "message"),
    [
        (torch.tensor([0.5, 0.6]), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3), "sum 1"),
        (torch.tensor([1.5, -0.5]), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3), "positive"),
        (torch.ones(1), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3), r"expected \[J\]"),
        (torch.ones(1), torch.zeros(1, 3), torch.eye(2).expand(1, 2, 2), r"\[J,S,S\]"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(
    weight: Tensor, mean: Tensor, covariance: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weight, mean, covariance)


def test_one_sample_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        sample_moments(torch.zeros(1, 3))


def test_kl_is_the_mean_log_ratio_of_densities() -> None:
    mean, std = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0])
    other_mean, other_std = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.5])
    own, other = torch.distributions.Normal(mean, std), torch.distributions.Normal(other_mean, other_std)
    draws = mean + std * torch.randn(100_000, 2, generator=seeded())
    ratio = (own.log_prob(draws) - other.log_prob(draws)).sum(dim=-1)
    assert float(diagonal_kl(mean, std, other_mean, other_std)) == pytest.approx(float(ratio.mean()), rel=0.02)
    assert float(diagonal_kl(mean, std, mean, std)) == 0


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_the_latent_constant_bounds_what_a_linear_map_makes_of_a_wrong_prior(seed: int) -> None:
    generator = seeded(seed)
    mean, other_mean = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    std, other_std = 0.2 + 2 * torch.rand(2, 3, generator=generator, dtype=torch.float64)
    decode = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    distance = gaussian_w2_squared(
        decode @ mean,
        decode @ std.square().diag() @ decode.T,
        decode @ other_mean,
        decode @ other_std.square().diag() @ decode.T,
    )
    lipschitz = float(torch.linalg.matrix_norm(decode, ord=2))
    c2 = latent_constant(lipschitz, other_std.square().diag())
    # Half of C2: the other half pays for the triangle step, which has nothing to add here.
    assert float(distance) <= c2 / 2 * float(diagonal_kl(mean, std, other_mean, other_std)) + 1e-6


def test_lipschitz_estimates_approach_the_constant_from_below() -> None:
    decode = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    latents = torch.randn(200, 2, generator=seeded())
    estimate = lipschitz_estimate(latents, latents @ decode.T)
    assert 2.9 < estimate <= 3 + 1e-6
    with pytest.raises(ValueError, match="at least 2"):
        lipschitz_estimate(latents[:1], latents[:1])
