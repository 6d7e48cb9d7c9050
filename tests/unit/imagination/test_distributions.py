"""Both distributions against torch.distributions, and their samples against their own moments."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from imagination.distributions import ActionDistribution, DiagonalGaussian, StretchedBeta

ALPHA = torch.tensor([1.0, 1.7, 4.0, 30.0])
BETA = torch.tensor([1.0, 3.0, 1.2, 20.0])


def stretched() -> distributions.Distribution:
    base = distributions.Beta(ALPHA, BETA)
    return distributions.TransformedDistribution(base, distributions.AffineTransform(-1.0, 2.0))


def test_beta_equals_the_affine_transform_of_a_beta() -> None:
    action = torch.linspace(-0.99, 0.99, 21)[:, None].expand(-1, 4)
    ours = StretchedBeta(ALPHA, BETA)
    torch.testing.assert_close(ours.log_prob(action), stretched().log_prob(action), rtol=1e-4, atol=1e-5)
    base = distributions.Beta(ALPHA, BETA)
    torch.testing.assert_close(ours.mean, 2 * base.mean - 1)
    torch.testing.assert_close(ours.std, 2 * base.stddev)
    torch.testing.assert_close(ours.entropy(), base.entropy() + torch.tensor(2.0).log(), rtol=1e-4, atol=1e-5)


def test_gaussian_equals_torch() -> None:
    mean, std = torch.randn(3, 4), torch.rand(3, 4) + 0.1
    ours, theirs = DiagonalGaussian(mean, std), distributions.Normal(mean, std)
    action = torch.randn(3, 4)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


@pytest.mark.parametrize(
    "many",
    [
        StretchedBeta(ALPHA.expand(20_000, 4), BETA.expand(20_000, 4)),
        DiagonalGaussian(ALPHA.expand(20_000, 4) / 30, BETA.expand(20_000, 4) / 20),
    ],
    ids=["beta", "gaussian"],
)
def test_samples_have_the_stated_moments_and_come_from_the_generator(many: ActionDistribution) -> None:
    draw = many.sample(torch.Generator().manual_seed(0))
    assert torch.equal(draw, many.sample(torch.Generator().manual_seed(0)))
    assert not torch.equal(draw, many.sample(torch.Generator().manual_seed(1)))
    tolerance = 5 * many.std[0] / 20_000**0.5
    assert ((draw.mean(0) - many.mean[0]).abs() < tolerance).all()
    torch.testing.assert_close(draw.std(0), many.std[0], rtol=0.03, atol=0.0)
    # Entropy is the mean negative log density, so this holds both against each other.
    torch.testing.assert_close(-many.log_prob(draw).mean(0), many.entropy()[0], rtol=0.03, atol=0.02)


def test_sampling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    StretchedBeta(ALPHA, BETA).sample(torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


def test_beta_is_finite_at_the_very_edges() -> None:
    ours = StretchedBeta(ALPHA.clone().requires_grad_(), BETA)
    log_prob = ours.log_prob(torch.tensor([[-1.0], [1.0]]))
    assert torch.isfinite(log_prob).all()
    log_prob.sum().backward()
    assert torch.isfinite(ours.alpha.grad).all()  # type: ignore[arg-type]
