"""The ladders and the training noise levels, against published numbers and diffusers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dima.schedule import default_num_denoising_steps, draw_training_sigmas, karras_sigmas, two_phase_sigmas

LADDERS = {
    1: (5.0,),
    2: (5.0, 0.002),
    3: (5.0, 0.28308, 0.002),
    4: (5.0, 0.84475, 0.07744, 0.002),
    5: (5.0, 1.37703, 0.28308, 0.03655, 0.002),
    6: (5.0, 1.81763, 0.55667, 0.13390, 0.02233, 0.002),
}
"""EDM's Eq. 5 for sigma in [0.002, 5] and rho 7."""


@pytest.mark.parametrize("num_steps", LADDERS)
def test_ladder_for_the_published_range(num_steps: int) -> None:
    assert karras_sigmas(num_steps, 0.002, 5.0, 7.0) == pytest.approx((*LADDERS[num_steps], 0.0), abs=1e-4)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 7, 18])
def test_ladder_is_that_of_diffusers(num_steps: int) -> None:
    from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

    scheduler = EDMEulerScheduler(sigma_min=0.01, sigma_max=9.0, rho=5.0)
    scheduler.set_timesteps(num_steps)

    assert karras_sigmas(num_steps, 0.01, 9.0, 5.0) == pytest.approx(scheduler.sigmas.tolist(), rel=1e-6)


@given(
    num_steps=st.integers(2, 40),
    sigma_min=st.floats(1e-4, 0.5),
    ratio=st.floats(1.5, 1e4),
    rho=st.floats(0.5, 12.0),
)
def test_ladder_falls_from_top_to_bottom_to_zero(num_steps: int, sigma_min: float, ratio: float, rho: float) -> None:
    sigmas = karras_sigmas(num_steps, sigma_min, sigma_min * ratio, rho)

    assert len(sigmas) == num_steps + 1
    assert all(upper > lower for upper, lower in itertools.pairwise(sigmas))
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == pytest.approx((sigma_min * ratio, sigma_min, 0.0))


@pytest.mark.parametrize(("num_steps", "low", "high"), [(0, 0.1, 1.0), (3, 0.0, 1.0), (3, 1.0, 1.0), (3, 2.0, 1.0)])
def test_impossible_ladders_are_refused(num_steps: int, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"num_steps={num_steps}, sigma_min={low}, sigma_max={high}"):
        karras_sigmas(num_steps, low, high, 7.0)


@given(reveal=st.integers(1, 20), refine=st.integers(1, 8), middle=st.floats(0.05, 4.0))
def test_two_phases_fall_through_the_reveal_level(reveal: int, refine: int, middle: float) -> None:
    sigmas = two_phase_sigmas(reveal, refine, 0.02, middle, 5.0, 7.0)

    assert len(sigmas) == reveal + refine + 1
    assert all(upper > lower for upper, lower in itertools.pairwise(sigmas))
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == pytest.approx((5.0, 0.02, 0.0))
    assert sigmas[reveal - 1] == pytest.approx(middle if reveal > 1 else 5.0)
    steps = [a ** (1 / 7) - b ** (1 / 7) for a, b in itertools.pairwise(sigmas[:-1])]
    for phase in (steps[: reveal - 1], steps[reveal - 1 :]):
        assert phase == pytest.approx([sum(phase) / max(len(phase), 1)] * len(phase)), "even in sigma^(1/rho)"


@pytest.mark.parametrize("phases", [(0, 2, 1.0), (2, 0, 1.0), (2, 2, 5.0), (2, 2, 0.02)])
def test_impossible_phases_are_refused(phases: tuple[int, int, float]) -> None:
    reveal, refine, middle = phases
    with pytest.raises(ValueError, match="expected at least"):
        two_phase_sigmas(reveal, refine, 0.02, middle, 5.0, 7.0)


def test_number_of_denoising_steps_is_table_4() -> None:
    assert [default_num_denoising_steps(n) for n in (1, 2, 3, 4, 6, 17)] == [2, 4, 3, 4, 6, 17]


def test_training_sigmas_have_the_quantiles_of_the_log_normal() -> None:
    sigma = draw_training_sigmas(200_000, torch.Generator().manual_seed(0))

    levels = torch.tensor([0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99])
    expected = torch.tensor([0.041, 0.093, 0.298, 0.670, 1.506, 4.83, 10.9])
    torch.testing.assert_close(torch.quantile(sigma, levels), expected, rtol=0.03, atol=0.0)


def test_training_sigmas_are_clipped() -> None:
    draws = 200_000
    sigma = draw_training_sigmas(draws, torch.Generator().manual_seed(0), sigma_min=0.1, sigma_max=20.0)

    # P(ln sigma > ln 20) and P(ln sigma < ln 0.1) under N(-0.4, 1.2^2)
    above, below = (0.5 * math.erfc(abs(math.log(x) + 0.4) / 1.2 / math.sqrt(2)) for x in (20.0, 0.1))
    assert float(sigma.max()) == 20.0
    assert float(sigma.min()) == pytest.approx(0.1)
    assert (sigma == 20.0).float().mean() == pytest.approx(above, abs=4 * math.sqrt(above / draws))
    assert (sigma == sigma.min()).float().mean() == pytest.approx(below, abs=4 * math.sqrt(below / draws))


def test_training_sigmas_follow_the_generator_and_nothing_else() -> None:
    before = torch.get_rng_state()
    first, again, other = (draw_training_sigmas(8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
