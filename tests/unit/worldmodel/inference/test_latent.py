"""The latent's Gaussians against torch.distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from worldmodel.inference import latent
from worldmodel.inference.latent import Gaussian, LatentNetwork, unit_noise


def draw(seed: int) -> Gaussian:
    g = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g).clamp(-5, 2))


def as_torch(law: Gaussian) -> Independent:
    return Independent(Normal(law.mean, law.log_std.exp()), 1)


def test_the_kl_divergence_is_that_of_torch() -> None:
    q, p = draw(0), draw(1)
    torch.testing.assert_close(latent.kl_divergence(q, p), kl_divergence(as_torch(q), as_torch(p)))
    torch.testing.assert_close(latent.kl_divergence(p, p), torch.zeros(6))


def test_a_draw_has_the_mean_and_spread_that_are_said() -> None:
    law = Gaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -1.0]]))
    noise = unit_noise((20_000, 2), law.mean, torch.Generator().manual_seed(0))
    drawn = law.sample(noise)
    torch.testing.assert_close(drawn.mean(dim=0), law.mean[0], rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.std(dim=0), law.log_std.exp()[0], rtol=0.03, atol=0)


def test_a_network_bounds_its_spread_so_that_the_kl_stays_finite() -> None:
    network = LatentNetwork(3, 4, 16, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e3)
    y: Tensor = 1e3 * torch.randn(50, 3)
    law = network(y)
    assert law.mean.shape == law.log_std.shape == (50, 4)
    assert law.log_std.min() == -5.0
    assert law.log_std.max() == 2.0
    opposite = Gaussian(torch.zeros(50, 4), -law.log_std.clamp(-2, 2))
    assert torch.isfinite(latent.kl_divergence(law, opposite)).all()
