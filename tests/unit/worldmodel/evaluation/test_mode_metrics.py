"""Nearest modes and shares against a mixture's own sampler and naive loops."""

from __future__ import annotations

import pytest
import torch

from worldmodel.evaluation.curves import Bootstrap
from worldmodel.evaluation.mode_metrics import ModeScores, describe_modes, score_modes, total_variation
from worldmodel.inference.gaussian_mixture import GaussianMixture

WEIGHT = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
STD, DIM, MOMENTS = 0.3, 4, 60


def mixture() -> GaussianMixture:
    centre = 10.0 * torch.eye(DIM, dtype=torch.float64)[:3]
    shift = torch.randn(MOMENTS, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return GaussianMixture.isotropic(WEIGHT, centre[:, None] + shift, STD)


def test_a_perfect_sampler_has_the_variance_within_a_mode_and_the_right_shares() -> None:
    law = mixture()
    samples = law.sample(400, torch.Generator().manual_seed(0))[:, :, None]
    described = describe_modes(score_modes(samples, law.mean), WEIGHT, Bootstrap(MOMENTS, 200))
    assert described["nearest_error"]["value"] == pytest.approx(DIM * STD**2, rel=0.02)
    assert described["shares"] == pytest.approx(WEIGHT.tolist(), abs=0.01)
    assert described["weight_error"]["value"] < 0.01
    assert described["weight_error_per_state"]["value"] == pytest.approx(0.022, abs=0.01)  # 400 draws a moment


def test_scores_are_those_of_naive_loops() -> None:
    law = mixture()
    samples = torch.randn(5, MOMENTS, 2, DIM, generator=torch.Generator().manual_seed(2)) * 5
    scores = score_modes(samples, law.mean)
    for moment in (0, 17):
        for agent in (0, 1):
            distance = [
                [float((s - centre).square().sum()) for centre in law.mean[:, moment]]
                for s in samples[:, moment, agent].double()
            ]
            assert float(scores.nearest[moment, agent]) == pytest.approx(sum(map(min, distance)) / 5)
            met = [each.index(min(each)) for each in distance]
            assert scores.share[moment, agent].tolist() == pytest.approx([met.count(j) / 5 for j in range(3)])


def test_the_law_says_the_same_of_the_nearest_mode() -> None:
    law = mixture()
    samples = torch.randn(5, MOMENTS, DIM, generator=torch.Generator().manual_seed(2))
    scores = score_modes(samples[:, :, None], law.mean)
    torch.testing.assert_close(scores.nearest[:, 0], law.nearest_mode_error(samples).mean(dim=0))


def test_who_keeps_to_one_mode_a_moment_is_found_out_though_all_moments_together_look_right() -> None:
    law = mixture()
    chosen = torch.multinomial(WEIGHT, MOMENTS, replacement=True, generator=torch.Generator().manual_seed(0))
    samples = law.mean[chosen, torch.arange(MOMENTS)].expand(32, MOMENTS, DIM)[:, :, None]
    described = describe_modes(score_modes(samples, law.mean), WEIGHT, Bootstrap(MOMENTS, 200))
    assert described["nearest_error"]["value"] == 0
    assert described["weight_error"]["value"] < 0.15
    assert described["weight_error_per_state"]["value"] > 0.3
    low, high = described["weight_error"]["ci95"]
    assert 0 <= low <= high <= 1


def test_agents_and_batches() -> None:
    law = mixture()
    samples = law.sample(4, torch.Generator().manual_seed(0))[:, :, None].expand(-1, -1, 2, -1)
    whole = score_modes(samples, law.mean)
    parts = [score_modes(samples[:, part], law.mean[:, part]) for part in (slice(0, 9), slice(9, None))]
    torch.testing.assert_close(ModeScores.join(parts).share, whole.share)
    torch.testing.assert_close(whole.of_agent(1).nearest, whole.nearest[:, 1:])


def test_total_variation() -> None:
    assert float(total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.75]))) == pytest.approx(0.75)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="centres has shape"):
        score_modes(torch.zeros(3, MOMENTS, 2, DIM + 1), mixture().mean)
