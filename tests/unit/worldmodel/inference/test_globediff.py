"""GlobeDiff's loss and sampler against a computation row by row, and its averaged weights against a loop by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from tests.support.inference_models import inference_config
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import stir
from worldmodel.inference.globediff import GlobeDiff, GlobeDiffConfig
from worldmodel.inference.latent import Gaussian
from worldmodel.inference.noise import make_betas

X_DIM, STATE_DIM, ROWS = 6, 5, 4


def config(*overrides: str) -> GlobeDiffConfig:
    return inference_config("globediff", *overrides)


def lively(*overrides: str) -> GlobeDiff:
    torch.manual_seed(0)
    law = GlobeDiff(config(*overrides), X_DIM, STATE_DIM)
    stir(law)
    return law.eval()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data() -> tuple[Tensor, Tensor]:
    g = seeded(1)
    return torch.randn(ROWS, X_DIM, generator=g), torch.randn(ROWS, STATE_DIM, generator=g)


def as_torch(law: Gaussian) -> Independent:
    return Independent(Normal(law.mean, law.log_std.exp()), 1)


@pytest.mark.parametrize("latent_dim", [0, 3])
def test_the_loss_is_equation_10(latent_dim: int) -> None:
    law = lively(f"latent_dim={latent_dim}", "num_denoising_steps=5", "kl_weight=0.3")
    x, s = data()
    loss, metrics = law.loss(x, s, seeded(2))

    g = seeded(2)
    posterior_noise = torch.randn(ROWS, latent_dim, generator=g) if latent_dim else None
    step = torch.randint(5, (ROWS,), generator=g)
    noise = torch.randn(ROWS, STATE_DIM, generator=g)
    kept = (1 - make_betas("vp", 5)).cumprod(0).float()
    errors, divergences = [], []
    for row in range(ROWS):
        one = slice(row, row + 1)
        y = x[one]
        if law.posterior is not None and law.networks.prior is not None and posterior_noise is not None:
            q, p = law.posterior(torch.cat([x[one], s[one]], dim=1)), law.networks.prior(x[one])
            divergences.append(kl_divergence(as_torch(q), as_torch(p)))
            y = torch.cat([y, q.mean + q.log_std.exp() * posterior_noise[one]], dim=1)
        share = kept[step[row]]
        noisy = share.sqrt() * s[one] + (1 - share).sqrt() * noise[one]
        predicted = law.networks.denoiser(noisy, step[one], law.networks.denoiser.embed_condition(y))
        errors.append((predicted - noise[one]).square().sum() / STATE_DIM)
    error = torch.stack(errors).mean()
    kl = torch.cat(divergences).mean() if latent_dim else torch.zeros(())
    torch.testing.assert_close(loss, error + 0.3 / STATE_DIM * kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["inference_error"], error.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["inference_kl"], kl.detach(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sampling_noise", ["posterior", "literal"])
@pytest.mark.parametrize("latent_dim", [0, 3])
def test_a_sample_is_the_algorithm_of_section_4(latent_dim: int, sampling_noise: str) -> None:
    law = lively(f"latent_dim={latent_dim}", "num_denoising_steps=4", f"sampling_noise={sampling_noise}", "clip=2.0")
    x, _ = data()
    noise = law.draw_noise(ROWS, seeded(3))
    assert noise.shape == (ROWS, latent_dim + 5 * STATE_DIM)
    y = x
    if law.networks.prior is not None:
        prior = law.networks.prior(x)
        y = torch.cat([x, prior.mean + prior.log_std.exp() * noise[:, :latent_dim]], dim=1)
    unused = [noise[:, latent_dim + i * STATE_DIM :][:, :STATE_DIM] for i in range(5)]
    s = unused[0]
    for step in (3, 2, 1, 0):
        denoiser = law.networks.denoiser
        epsilon = denoiser(s, torch.full((ROWS,), step), denoiser.embed_condition(y))
        s = law.reverse.denoise(s, epsilon, step, unused[step + 1])
    torch.testing.assert_close(law.sample(x, noise), s, rtol=1e-5, atol=1e-5)


def updates(law: GlobeDiff, number: int) -> None:
    """So many steps of gradient descent, as a fit makes them."""
    optimizer = torch.optim.SGD([p for p in law.parameters() if p.requires_grad], lr=0.1)
    x, s = data()
    for i in range(number):
        optimizer.zero_grad()
        law.loss(x, s, seeded(i))[0].backward()
        optimizer.step()


def flat(module: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_averaged_weights_are_those_of_a_loop() -> None:
    law = lively("ema_decay=0.8").train()
    assert law.averaged is not None
    average: Tensor | None = None
    for _ in range(6):
        now = flat(law.networks)
        average = now if average is None else 0.8 * average + 0.2 * now
        updates(law, 1)
        torch.testing.assert_close(flat(law.averaged.module), average, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(flat(law.networks), average)  # type: ignore[arg-type]


def test_a_held_out_loss_moves_no_weight_and_samples_come_from_the_average() -> None:
    law = lively("ema_decay=0.8").train()
    assert law.averaged is not None
    updates(law, 3)
    before = {name: tensor.clone() for name, tensor in law.state_dict().items()}
    law.eval()
    x, s = data()
    law.loss(x, s, seeded(0))
    law.latent_report(x, s, seeded(0))
    assert all(torch.equal(before[name], tensor) for name, tensor in law.state_dict().items())
    noise = law.draw_noise(ROWS, seeded(3))
    with torch.no_grad():
        averaged = law.sample(x, noise)
        plain = lively()
        plain.networks.load_state_dict(law.averaged.module.state_dict())
        torch.testing.assert_close(averaged, plain.sample(x, noise), rtol=1e-4, atol=1e-4)
        plain.networks.load_state_dict(law.networks.state_dict())
        assert not torch.allclose(averaged, plain.sample(x, noise))


@torch.no_grad()
@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
def test_the_report_compares_posterior_and_prior_under_the_same_noise(ema_decay: float) -> None:
    """By hand, with the prior and the denoiser that samples are made with."""
    law = lively(f"ema_decay={ema_decay}", "num_denoising_steps=5")
    if law.averaged is not None:
        stir(law.averaged, seed=3)
    networks: Any = law.networks if law.averaged is None else law.averaged.module
    assert law.posterior is not None
    x, s = data()
    report = law.latent_report(x, s, seeded(0))

    g = seeded(0)
    q, p = law.posterior(torch.cat([x, s], dim=1)), networks.prior(x)
    unit = torch.randn(q.mean.shape, generator=g)
    step, noise = torch.randint(5, (ROWS,), generator=g), torch.randn(ROWS, STATE_DIM, generator=g)
    noisy = law.reverse.add_noise(s, noise, step)
    torch.testing.assert_close(report["kl"], kl_divergence(as_torch(q), as_torch(p)))
    for name, latent in (("posterior", q), ("prior", p)):
        y = torch.cat([x, latent.mean + latent.log_std.exp() * unit], dim=1)
        predicted = networks.denoiser(noisy, step, networks.denoiser.embed_condition(y))
        torch.testing.assert_close(report[f"error_{name}"], (predicted - noise).square().mean(dim=1))
    assert not torch.allclose(report["error_posterior"], report["error_prior"])


def test_a_report_without_a_latent_is_empty() -> None:
    assert lively("latent_dim=0").latent_report(*data(), seeded(0)) == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("channels=[8,12]", "multiples of groups = 8"),
        ("channels=[]", "channels"),
        ("cond_dim=5", "an even number"),
        ("num_denoising_steps=0", "at least 1"),
        ("ema_decay=1.0", r"a number in \[0, 1\)"),
        ("clip=0.0", "above 0"),
        ("schedule=sigmoid", "one of vp, cosine, linear"),
    ],
)
def test_values_without_sense_are_refused(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as raised:
        config(override)
    assert isinstance(raised.value, ConfigError) or isinstance(raised.value.__cause__, ConfigError)
