"""The diffusion's arithmetic against diffusers' scheduler and the paper's equations, with the same random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.inference.noise import ReverseProcess, ScheduleKind, make_betas, make_scheduler

ROWS, DIM = 7, 5
KINDS: tuple[ScheduleKind, ...] = ("vp", "cosine")


def normal(seed: int) -> Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("kind", "betas", "signal"),
    [
        ("vp", [0.19587, 0.45882, 0.63578, 0.75488, 0.83503], 6.4e-3),
        ("cosine", [0.10129, 0.27954, 0.47364, 0.72405, 0.999], 9.4e-5),
        ("linear", [0.0001, 0.005075, 0.01005, 0.015025, 0.02], 0.951),
    ],
)
def test_five_betas(kind: ScheduleKind, betas: list[float], signal: float) -> None:
    found = make_betas(kind, 5)
    torch.testing.assert_close(found, torch.tensor(betas, dtype=torch.float64), rtol=0, atol=6e-6)
    assert float((1 - found).prod()) == pytest.approx(signal, rel=0.02)


@pytest.mark.parametrize("num_steps", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_adding_noise_is_that_of_diffusers(kind: ScheduleKind, num_steps: int) -> None:
    process, scheduler = ReverseProcess(kind, num_steps, 5.0, "posterior"), make_scheduler(kind, num_steps, 5.0)
    clean, noise = normal(0), normal(1)
    step = torch.arange(ROWS) % num_steps
    torch.testing.assert_close(
        process.add_noise(clean, noise, step), scheduler.add_noise(clean, noise, step), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("clip", [0.5, 5.0])
@pytest.mark.parametrize("num_steps", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_a_reverse_chain_is_that_of_diffusers(kind: ScheduleKind, num_steps: int, clip: float) -> None:
    process, scheduler = ReverseProcess(kind, num_steps, clip, "posterior"), make_scheduler(kind, num_steps, clip)
    scheduler.set_timesteps(num_steps)
    assert scheduler.timesteps.tolist() == list(reversed(range(num_steps)))
    s = expected = normal(0)
    clipped = 0
    for step in reversed(range(num_steps)):
        epsilon = (0.7 * s).tanh() + 0.3 * normal(100 + step)  # any function of the state will do
        clean = (s - process.noise[step] * epsilon) / process.signal[step]
        clipped += int((clean.abs() > clip).sum())
        expected = scheduler.step(
            epsilon, step, expected, generator=torch.Generator().manual_seed(step)
        ).prev_sample  # draws normal(step), but at the last step
        s = process.denoise(s, epsilon, step, normal(step))
        torch.testing.assert_close(s, expected, rtol=1e-5, atol=1e-5)
    assert clipped > 0 or clip > 1, "the clipping was put to the test"
    assert s.abs().max() <= clip + 1e-5


@pytest.mark.parametrize("num_steps", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_adds_noise_only_where_the_paper_is_taken_at_its_word(kind: ScheduleKind, num_steps: int) -> None:
    noisy, epsilon = normal(0), normal(1)
    quiet = ReverseProcess(kind, num_steps, 5.0, "posterior")
    assert torch.equal(quiet.denoise(noisy, epsilon, 0, normal(2)), quiet.denoise(noisy, epsilon, 0, normal(3)))
    literal = ReverseProcess(kind, num_steps, 5.0, "literal")
    torch.testing.assert_close(literal.std, make_betas(kind, num_steps).sqrt().float())
    moved = literal.denoise(noisy, epsilon, 0, normal(2)) - quiet.denoise(noisy, epsilon, 0, normal(2))
    torch.testing.assert_close(moved, make_betas(kind, num_steps)[0].sqrt().float() * normal(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_literal_step_is_equation_9_while_nothing_is_clipped(kind: ScheduleKind) -> None:
    """s^(k-1) = (s^k - (1 - alpha_k) / sqrt(1 - abar_k) eps) / sqrt(alpha_k) + sqrt(beta_k) noise."""
    process = ReverseProcess(kind, 5, 1e6, "literal")
    beta = make_betas(kind, 5)
    kept = (1 - beta).cumprod(0)
    for step in range(5):
        noisy, epsilon, noise = normal(step).double(), normal(10 + step).double(), normal(20 + step).double()
        mean = (noisy - beta[step] / (1 - kept[step]).sqrt() * epsilon) / (1 - beta[step]).sqrt()
        expected = (mean + beta[step].sqrt() * noise).float()
        found = process.denoise(noisy.float(), epsilon.float(), step, noise.float())
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_the_numbers_are_no_part_of_what_is_saved() -> None:
    assert ReverseProcess("vp", 5, 5.0, "posterior").state_dict() == {}
