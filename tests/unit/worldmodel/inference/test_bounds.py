"""GlobeDiff's two theorems on cases whose answer is known: where they hold, where the printed text fails, and why."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.inference.bounds import theorem_1_gaussians, theorem_1_samples, theorem_2
from worldmodel.inference.gaussian_mixture import GaussianMixture
from worldmodel.inference.inequality import Condition, Inequality


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_gaussian(dim: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return 3 * torch.randn(dim, generator=generator, dtype=torch.float64), root @ root.T


# Theorem 1


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_theorem_1_holds_for_independent_draws(seed: int, dim: int) -> None:
    generator = seeded(seed)
    check = theorem_1_gaussians(*random_gaussian(dim, generator), *random_gaussian(dim, generator))
    assert check.holds
    assert check.conditions_hold
    assert check.left <= check.terms["(W2 + sqrt Var)^2 + Var"] * (1 + 1e-9) + 1e-9


def test_theorem_1_in_numbers() -> None:
    """|m - m'|^2 + d (std - std')^2 and so on, by hand."""
    eye = torch.eye(3)
    check = theorem_1_gaussians(torch.zeros(3), 0.25 * eye, torch.tensor([1.0, 0, 0]), 4 * eye)
    assert check.terms["W2^2"] == pytest.approx(1 + 3 * 1.5**2)
    assert check.terms["Var(s|x)"] == pytest.approx(12)
    assert check.left == pytest.approx(1 + 3 * (0.25 + 4))
    assert check.right == pytest.approx(2 * 7.75 + 48)


def test_theorem_1_fails_for_draws_that_oppose_each_other() -> None:
    """s unit normal, s_hat = -1.5 s."""
    zero, one = torch.zeros(1), torch.ones(1, 1)
    check = theorem_1_gaussians(zero, 2.25 * one, zero, one, cross=-1.5 * one)
    state = torch.randn(100_000, generator=seeded(), dtype=torch.float64)
    assert (check.left, check.right) == pytest.approx((6.25, 4.5))
    assert check.left == pytest.approx(float((-1.5 * state - state).square().mean()), rel=0.02)
    assert not check.holds
    assert not check.conditions_hold


def two_modes() -> GaussianMixture:
    """Two observations, unequal weights; centres 6 apart in 4 dimensions."""
    first = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    return GaussianMixture.isotropic(torch.tensor([0.7, 0.3]), torch.stack([first, first + 3]), 0.5)


def test_theorem_1_on_samples_is_the_mean_over_independent_pairs() -> None:
    law = two_modes()
    samples, truth = law.sample(2000, seeded(1)) + 0.5, law.sample(2000, seeded(2))
    check = theorem_1_samples(samples, law)
    pairs = torch.stack([(samples[:, x, None] - truth[None, :, x]).square().sum(dim=-1).mean() for x in range(2)])
    assert check.left == pytest.approx(float(pairs.mean()), abs=5 * check.left_error)
    assert check.terms["Var(s|x)"] == pytest.approx(0.7 * 0.3 * 36 + 4 * 0.25)
    assert check.terms["W2^2"] == pytest.approx(4 * 0.25, rel=0.1)  # a shift by 0.5 in each dimension
    assert check.holds


def test_theorem_1_takes_a_distance_that_is_known() -> None:
    law = two_modes()
    assert theorem_1_samples(law.sample(10, seeded()), law, w2_squared=0.0).terms["W2^2"] == 0


def test_one_mean_for_all_modes_has_the_smallest_square_error() -> None:
    """Why the left side of Theorem 1 says little about a model of several modes."""
    law = two_modes()
    mean, _ = law.moments()
    regressor = theorem_1_samples(mean.expand(2, 2, 4), law)
    perfect = theorem_1_samples(law.sample(5000, seeded()), law, w2_squared=0.0)
    assert regressor.left == pytest.approx(regressor.terms["Var(s|x)"])
    assert perfect.left == pytest.approx(2 * perfect.terms["Var(s|x)"], abs=5 * perfect.left_error)
    assert law.nearest_mode_error(mean[None]).mean() > 3 * law.nearest_mode_error(law.sample(500, seeded())).mean()


# Theorem 2


def far_modes() -> GaussianMixture:
    """Four modes in 3 dimensions, 20 and more apart, with spreads of their own."""
    mean = 20 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    scale = torch.tensor([0.2, 0.4, 0.6, 0.8])
    return GaussianMixture(torch.tensor([0.4, 0.3, 0.2, 0.1]), mean, scale[:, None, None] * torch.eye(3))


def test_theorem_2_for_a_perfect_sampler() -> None:
    check = theorem_2(far_modes().sample(50_000, seeded()), far_modes(), noise_term=0.0)
    by_hand = 3 * (0.4 * 0.2 + 0.3 * 0.4 + 0.2 * 0.6 + 0.1 * 0.8)
    assert check.left == pytest.approx(by_hand, abs=5 * check.left_error)
    assert check.left_error < 0.01
    assert check.right == pytest.approx(2 * 3 * 0.8)
    assert check.holds
    assert check.conditions_hold
    assert check.terms["exp(-D^2 / (8 sigma_max^2))"] == pytest.approx(math.exp(-400 / (8 * 2.4)))


@pytest.mark.parametrize(
    ("stretch", "constants", "holds"),
    [
        (1.3, "printed", True),
        (2.0, "printed", False),  # (1 + c)^2 T > c^2 T + 2 T once c > 1/2
        (2.0, "proof", True),
        (2.0, "coupling", True),
    ],
)
def test_theorem_2_for_a_sampler_that_is_too_wide(
    stretch: float, constants: Literal["printed", "proof", "coupling"], holds: bool
) -> None:
    """Spread is `stretch` times too large in every mode. W2^2 itself stands for E: at most the cost of that map."""
    law = GaussianMixture.isotropic(torch.full((4,), 0.25), far_modes().mean, 0.5)
    wide = GaussianMixture.isotropic(law.weight, law.mean, 0.5 * stretch)
    moved = (stretch - 1) ** 2 * 0.75
    check = theorem_2(wide.sample(50_000, seeded()), law, noise_term=moved, constants=constants)
    assert check.left == pytest.approx(0.75 * stretch**2, rel=0.03)
    assert check.conditions_hold
    assert check.holds is holds


def test_theorem_2_does_not_see_wrong_weights() -> None:
    """The nearest mode is right even where one mode is all that a model knows."""
    law = far_modes()
    only_first = law.mean[0] + math.sqrt(0.2) * torch.randn(5000, 3, generator=seeded(), dtype=torch.float64)
    check = theorem_2(only_first, law, noise_term=0.0)
    assert check.holds
    assert theorem_1_samples(only_first, law).terms["W2^2"] > 100


def test_theorem_2_refutes_a_regressor_to_the_mean() -> None:
    law = far_modes()
    mean, _ = law.moments()
    check = theorem_2(mean.expand(10, 3), law, noise_term=0.0, constants="proof")
    assert check.left > 10 * check.right
    assert not check.holds


@pytest.mark.parametrize(
    ("distance", "noise_term", "latent_term", "expected"),
    [
        (20.0, 0.0, 0.0, [True, True, True]),
        (2.0, 0.0, 0.0, [False, True, True]),
        (20.0, 25.0, 0.0, [True, False, False]),
        (20.0, 0.0, 19.0, [True, True, False]),  # 4 sqrt(19) + 1 = 18.4, 19 + 1 = 20
        (20.0, 0.0, 0.5, [True, True, True]),
    ],
)
def test_theorem_2_names_the_conditions_that_are_not_met(
    distance: float, noise_term: float, latent_term: float, expected: list[bool]
) -> None:
    mean = torch.zeros(2, 4)
    mean[1, 0] = distance
    law = GaussianMixture.isotropic(torch.tensor([0.5, 0.5]), mean, 0.5)
    check = theorem_2(law.sample(10, seeded()), law, noise_term=noise_term, latent_term=latent_term)
    assert [condition.holds for condition in check.conditions] == expected


# What is printed


def test_a_check_describes_itself() -> None:
    check = theorem_1_gaussians(torch.zeros(1), 2.25 * torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1))
    assert str(check).splitlines() == [
        "Theorem 1: holds",
        "  left   3.25 = E|s_hat - s|^2",
        "  right  4.5 = 2 W2^2 + 4 Var(s|x)",
        "  met: s_hat and s are drawn independently (not printed)",
        "  W2^2 = 0.25",
        "  Var(s|x) = 1",
        "  (W2 + sqrt Var)^2 + Var = 3.25",
    ]


def test_a_failure_and_an_error_of_the_left_side_are_shown() -> None:
    check = Inequality("Claim", "a", 2.0, "b", 1.0, (Condition("c > d", False),), {}, left_error=0.25)
    assert check.describe() == "Claim: FAILS\n  left   2 +- 0.25 = a\n  right  1 = b\n  NOT met: c > d"
