"""The factors of an injected error against a reverse chain that is run step by step with and without it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldmodel.inference.noise_factors import Constants, noise_factors, noise_mse

NUM_STEPS = 5


def cosine_betas() -> Tensor:
    """Nichol and Dhariwal 2021, offset 0.008, clipped at 0.999."""
    times = torch.arange(NUM_STEPS + 1, dtype=torch.float64) / NUM_STEPS
    level = torch.cos((times + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - level[1:] / level[:-1]).clamp(max=0.999)


def vp_betas() -> Tensor:
    """Variance-preserving, beta from 0.1 to 10 over the unit of time."""
    step = torch.arange(1, NUM_STEPS + 1, dtype=torch.float64)
    return 1 - torch.exp(-0.1 / NUM_STEPS - 0.5 * 9.9 * (2 * step - 1) / NUM_STEPS**2)


SCHEDULES = {
    "cosine": cosine_betas(),
    "vp": vp_betas(),
    "linear": torch.linspace(1e-4, 0.02, NUM_STEPS, dtype=torch.float64),
}


def chain_error(betas: Tensor, errors: Tensor) -> Tensor:
    """What `errors` [K,M,S] of the predicted noise do to the end of the chain of Eq. 24: [M,S].

    Two chains with the same noise, of which one predicts eps and the other eps plus the error.
    """
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(errors.shape[1:], generator=generator, dtype=torch.float64)
    wrong = right.clone()
    alphas = [1 - float(beta) for beta in betas]
    for k in reversed(range(len(alphas))):
        alpha, abar = alphas[k], math.prod(alphas[: k + 1])
        predicted = torch.randn(right.shape, generator=generator, dtype=torch.float64)
        added = math.sqrt(1 - alpha) * torch.randn(right.shape, generator=generator, dtype=torch.float64)
        factor = (1 - alpha) / math.sqrt(alpha * (1 - abar))
        right = right / math.sqrt(alpha) - factor * predicted + added
        wrong = wrong / math.sqrt(alpha) - factor * (predicted + errors[k]) + added
    return wrong - right


def mean_square(values: Tensor) -> float:
    return float(values.square().sum(dim=-1).mean())


@pytest.mark.parametrize(
    ("schedule", "printed", "exact", "correlated"),
    [
        ("cosine", 11_715, 10_620, 11_539),
        ("vp", 233.8, 128.9, 307.3),
        ("linear", 0.04134, 0.02815, 0.1179),
    ],
)
def test_bounds_of_three_schedules(schedule: str, printed: float, exact: float, correlated: float) -> None:
    factors = noise_factors(SCHEDULES[schedule])
    assert factors.num_steps * factors.c1("printed") == pytest.approx(printed, rel=5e-4)
    assert factors.bound(1.0) == pytest.approx(printed, rel=5e-4)
    assert factors.bound(1.0, "exact") == pytest.approx(exact, rel=5e-4)
    assert factors.bound(1.0, "correlated") == pytest.approx(correlated, rel=5e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_uncorrelated_errors_end_where_the_exact_sum_says(schedule: str) -> None:
    factors = noise_factors(SCHEDULES[schedule])
    errors = torch.randn(NUM_STEPS, 20_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reached = mean_square(chain_error(SCHEDULES[schedule], errors))
    mse = noise_mse(errors, torch.zeros_like(errors))
    assert reached == pytest.approx(factors.bound(mse, "exact"), rel=0.03)
    assert reached < factors.bound(mse, "printed")
    assert factors.bound(mse, "exact") <= factors.bound(mse, "corrected")


@pytest.mark.parametrize(("schedule", "covered"), [("cosine", True), ("vp", False), ("linear", False)])
def test_errors_of_one_direction_outgrow_the_printed_constant(schedule: str, covered: bool) -> None:
    factors = noise_factors(SCHEDULES[schedule])
    errors = torch.tensor([0.6, 0.8], dtype=torch.float64).expand(NUM_STEPS, 1, 2)  # unit length
    reached = mean_square(chain_error(SCHEDULES[schedule], errors))
    assert reached == pytest.approx(factors.bound(1.0, "correlated"))
    assert (reached <= factors.bound(1.0, "printed")) is covered
    assert reached <= factors.bound(1.0, "worst")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_error_in_one_step_outgrows_the_printed_constant_and_reaches_the_corrected(schedule: str) -> None:
    """The assumption bounds the mean over steps only, so one step may have it all; correlations play no part."""
    factors = noise_factors(SCHEDULES[schedule])
    reached = []
    for k in range(NUM_STEPS):
        errors = torch.zeros(NUM_STEPS, 1, 1, dtype=torch.float64)
        errors[k] = math.sqrt(NUM_STEPS)
        assert float(noise_mse(errors, torch.zeros_like(errors)).mean()) == pytest.approx(1.0)
        reached.append(mean_square(chain_error(SCHEDULES[schedule], errors)))
    assert max(reached) > factors.bound(1.0, "printed")
    assert max(reached) == pytest.approx(factors.bound(1.0, "corrected"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_worst_error_is_proportional_to_the_factors(schedule: str) -> None:
    factors = noise_factors(SCHEDULES[schedule])
    share = factors.executed.square() / factors.executed.square().mean()  # mean 1 over steps
    errors = share.sqrt()[:, None, None]
    reached = mean_square(chain_error(SCHEDULES[schedule], errors))
    assert reached == pytest.approx(factors.bound(share, "worst"))
    assert reached == pytest.approx(factors.bound(share, "correlated"))
    constants: tuple[Constants, ...] = ("printed", "corrected", "exact")
    assert all(reached > factors.bound(share, name) * (1 - 1e-9) for name in constants)


def test_the_signal_left_is_the_product() -> None:
    signals = [noise_factors(betas).signal for betas in SCHEDULES.values()]
    assert signals == pytest.approx([9.405e-5, 6.409e-3, 0.95063], rel=1e-3)


@pytest.mark.parametrize("betas", [[], [0.5, 1.0], [0.0, 0.1], [[0.1]]])
def test_schedules_that_make_no_sense_are_refused(betas: list) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        noise_factors(torch.tensor(betas))


def test_errors_that_make_no_sense_are_refused() -> None:
    factors = noise_factors(SCHEDULES["vp"])
    for wrong in (torch.ones(4), -1.0, torch.full((5,), float("nan"))):
        with pytest.raises(ValueError, match="expected 5 numbers of at least 0"):
            factors.bound(wrong)
    with pytest.raises(ValueError, match="constants = 'other'"):
        factors.bound(1.0, "other")  # pyright: ignore[reportArgumentType]
