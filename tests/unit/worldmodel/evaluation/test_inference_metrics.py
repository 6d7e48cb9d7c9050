"""Scores of inferred states against naive loops, closed forms and samplers that are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel.evaluation.curves import Bootstrap
from worldmodel.evaluation.inference_metrics import (
    StateScores,
    attainable_coverage,
    describe_score_difference,
    describe_scores,
    estimate,
    is_covered,
    quantile,
    score_draws,
)
from worldmodel.evaluation.units import Units

UNITS = Units(torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64), torch.tensor([True, True, False]))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit_scale(dim: int) -> Units:
    return Units(torch.ones(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.bool))


def drawn(num: int = 5, moments: int = 4, agents: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(num, moments, agents, 3, generator=seeded()), torch.randn(moments, 3, generator=seeded(1))


def test_scores_are_those_of_naive_loops() -> None:
    samples, truth = drawn()
    scores = score_draws(samples, truth, UNITS, seeded())
    scale, live = UNITS.std[:2].numpy(), [0, 1]
    for moment in range(4):
        for agent in range(2):
            x = samples[:, moment, agent, live].double().numpy() / scale
            y = truth[moment, live].double().numpy() / scale
            mean = sum(x) / 5
            np.testing.assert_allclose(scores.error_mean[moment, agent], (mean - y) ** 2)
            np.testing.assert_allclose(scores.error_draw[moment, agent], sum((each - y) ** 2 for each in x) / 5)
            near = sum(math.dist(each, y) for each in x) / 5
            apart = sum(math.dist(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
            assert float(scores.energy[moment, agent]) == pytest.approx((near - apart / 2) / math.sqrt(2))


def test_the_error_of_a_draw_is_that_of_the_mean_and_the_spread() -> None:
    samples, truth = drawn()
    scores = score_draws(samples, truth, UNITS, seeded())
    spread = UNITS.normalize(samples).var(dim=0, correction=0)
    torch.testing.assert_close(scores.error_draw, scores.error_mean + spread)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.5, 1.0), (0.0, 2.5)])
def test_the_energy_score_of_gaussians_has_a_closed_form(shift: float, scale: float) -> None:
    """In one dimension: E|X - y| - E|X - X'| / 2, averaged over y of a standard normal law, for few draws too."""
    moments = 40_000
    truth = torch.randn(moments, 1, generator=seeded())
    samples = shift + scale * torch.randn(3, moments, 1, 1, generator=seeded(1))
    energy = score_draws(samples, truth, unit_scale(1), seeded()).energy

    def mean_abs(mean: float, std: float) -> float:
        return std * math.sqrt(2 / math.pi) * math.exp(-((mean / std) ** 2) / 2) + mean * math.erf(
            mean / (std * math.sqrt(2))
        )

    expected = mean_abs(shift, math.sqrt(1 + scale**2)) - scale / math.sqrt(math.pi)
    assert float(energy.mean()) == pytest.approx(expected, abs=4 * float(energy.std()) / math.sqrt(moments))


@pytest.mark.parametrize("num", [8, 64])
def test_an_exact_sampler_covers_what_is_said_within_binomial_error(num: int) -> None:
    moments = 4000
    truth = torch.randn(moments, 1, generator=seeded())
    scores = score_draws(torch.randn(num, moments, 1, 1, generator=seeded(1)), truth, unit_scale(1), seeded())
    for level, covered in scores.covered.items():
        expected = attainable_coverage(level / 100, num)
        error = math.sqrt(expected * (1 - expected) / moments)
        # Between neighbouring draws the quantile is taken to be linear, which is not exact in the tails of few draws.
        assert float(covered.mean()) == pytest.approx(expected, abs=3 * error + 0.02 * (num < 20))


def test_few_draws_cannot_cover_much() -> None:
    assert attainable_coverage(0.9, 2) == pytest.approx(1 / 3)
    assert attainable_coverage(0.9, 19) == pytest.approx(0.9)
    assert attainable_coverage(0.5, 64) == 0.5
    moments = 20_000
    truth = torch.randn(moments, 1, generator=seeded())
    scores = score_draws(torch.randn(2, moments, 1, 1, generator=seeded(1)), truth, unit_scale(1), seeded())
    assert float(scores.covered[90].mean()) == pytest.approx(1 / 3, abs=0.01)


def test_too_narrow_draws_cover_too_little_and_stand_at_the_ends() -> None:
    truth = torch.randn(2000, 1, generator=seeded())
    scores = score_draws(0.2 * torch.randn(32, 2000, 1, 1, generator=seeded(1)), truth, unit_scale(1), seeded())
    assert float(scores.covered[90].mean()) < 0.4
    assert float(((scores.rank == 0) | (scores.rank == 32)).double().mean()) > 0.5


def test_the_truth_itself_has_no_error_and_is_always_covered() -> None:
    truth = torch.randn(6, 3, generator=seeded())
    scores = score_draws(truth[:, None].expand(4, -1, 2, -1).contiguous().view(4, 6, 2, 3), truth, UNITS, seeded())
    for values in (scores.error_mean, scores.error_draw, scores.energy):
        assert float(values.abs().max()) == 0
    assert all(bool((covered == 1).all()) for covered in scores.covered.values())


def test_equal_draws_beside_the_truth_cover_nothing() -> None:
    truth = torch.randn(6, 3, generator=seeded())
    scores = score_draws((truth + 0.1)[:, None].expand(8, -1, 1, -1), truth, UNITS, seeded())
    assert all(bool((covered == 0).all()) for covered in scores.covered.values())
    assert set(scores.rank.flatten().tolist()) == {0}


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.8])
def test_quantiles_follow_weibull(share: float) -> None:
    values = torch.randn(21, 3, generator=seeded(), dtype=torch.float64).sort(dim=0).values
    expected = np.quantile(values.numpy(), share, axis=0, method="weibull")
    np.testing.assert_allclose(quantile(values, share), expected)


def test_both_ends_of_an_interval_belong_to_it() -> None:
    ordered = torch.tensor([[0.0], [1.0], [2.0]])
    for truth, inside in ((0.0, True), (2.0, True), (2.1, False), (-0.1, False)):
        assert bool(is_covered(ordered, torch.tensor([truth]), 0.9)) is inside


def test_intervals_are_those_of_the_bootstrap() -> None:
    values = torch.randn(300, generator=seeded(), dtype=torch.float64)
    described = estimate(values, Bootstrap(300, 2000))
    assert described["value"] == pytest.approx(float(values.mean()))
    half = 1.96 * float(values.std()) / math.sqrt(300)
    assert described["ci95"] == pytest.approx([described["value"] - half, described["value"] + half], abs=0.15 * half)


def test_agents_are_averaged_and_can_be_told_apart() -> None:
    samples, truth = drawn(moments=30)
    scores, bootstrap = score_draws(samples, truth, UNITS, seeded()), Bootstrap(30, 100)
    together = describe_scores(scores, bootstrap)
    each = [describe_scores(scores.of_agent(agent), bootstrap) for agent in (0, 1)]
    for name in ("error_mean", "error_draw", "energy_score"):
        assert together[name]["value"] == pytest.approx(sum(one[name]["value"] for one in each) / 2)
    dims = together["error_mean"]["by_dimension"]["value"]
    assert together["error_mean"]["value"] == pytest.approx(sum(dims) / 2)
    histograms = [one["ranks"]["histogram"] for one in each]
    assert together["ranks"]["histogram"] == [a + b for a, b in zip(*histograms, strict=True)]
    assert together["ranks"]["p_value"] is None
    assert 0 <= each[0]["ranks"]["p_value"] <= 1


def test_batches_of_moments_make_the_same_scores() -> None:
    samples, truth = drawn(moments=10)
    whole = score_draws(samples, truth, UNITS, seeded())
    parts = [score_draws(samples[:, part], truth[part], UNITS, seeded()) for part in (slice(0, 4), slice(4, 10))]
    joined = StateScores.join(parts)
    torch.testing.assert_close(joined.energy, whole.energy)
    torch.testing.assert_close(joined.covered[50], whole.covered[50])
    assert joined.num_samples == 5


def test_differences_are_paired() -> None:
    samples, truth = drawn(moments=30)
    better, bootstrap = score_draws(samples, truth, UNITS, seeded()), Bootstrap(30, 100)
    worse = score_draws(samples + 1, truth, UNITS, seeded())
    difference = describe_score_difference(worse, better, bootstrap)
    for name, (a, b) in {
        "error_draw": (worse.error_draw, better.error_draw),
        "energy_score": (worse.energy, better.energy),
    }.items():
        assert difference[name]["value"] == pytest.approx(float(a.mean() - b.mean()))
    assert describe_score_difference(better, better, bootstrap)["error_mean"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_what_cannot_be_scored_is_refused() -> None:
    samples, truth = drawn()
    with pytest.raises(ValueError, match="1 sample a state: expected at least 2"):
        score_draws(samples[:1], truth, UNITS, seeded())
    with pytest.raises(ValueError, match="truth has shape"):
        score_draws(samples, truth[:2], UNITS, seeded())
    samples[2, 3, 1, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="moment 3 is not finite"):
        score_draws(samples, truth, UNITS, seeded())
