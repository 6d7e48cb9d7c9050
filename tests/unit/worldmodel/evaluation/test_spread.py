"""Scores against double loops and closed forms; ranks of calibrated, over-confident and biased forecasts."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.evaluation.curves import Bootstrap
from worldmodel.evaluation.spread import describe_spread, fair_crps, fair_energy_score, truth_rank, uniform_p_value
from worldmodel.evaluation.units import Units


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_scale(dim: int) -> Units:
    return Units(std=torch.ones(dim, dtype=torch.float64), live=torch.ones(dim, dtype=torch.bool))


def describe(samples: Tensor, truth: Tensor) -> dict[str, dict]:
    """One step, all segments valid: samples [B,M,D], truth [B,D]."""
    valid = torch.ones(len(truth), 1, dtype=torch.bool)
    units, bootstrap = unit_scale(truth.shape[-1]), Bootstrap(len(truth), 100)
    return describe_spread(samples[:, :, None], truth[:, None], valid, units, bootstrap, [1])


@given(seed=st.integers(0, 2**16), samples=st.integers(2, 6))
def test_scores_equal_double_loops(seed: int, samples: int) -> None:
    x, y = normal(2, 3, samples, 4, seed=seed), normal(2, 3, 4, seed=seed + 1)
    crps, energy = fair_crps(x, y), fair_energy_score(x, y)
    pairs = list(itertools.permutations(range(samples), 2))
    for b, t in np.ndindex(2, 3):
        drawn, happened = x[b, t].numpy(), y[b, t].numpy()
        for d in range(4):
            near = np.mean([abs(drawn[i, d] - happened[d]) for i in range(samples)])
            apart = np.mean([abs(drawn[i, d] - drawn[j, d]) for i, j in pairs])
            assert crps[b, t, d].item() == pytest.approx(near - apart / 2, rel=1e-9, abs=1e-12)
        near = np.mean([np.linalg.norm(drawn[i] - happened) for i in range(samples)])
        apart = np.mean([np.linalg.norm(drawn[i] - drawn[j]) for i, j in pairs])
        assert energy[b, t].item() == pytest.approx(near - apart / 2, rel=1e-9, abs=1e-12)


def test_energy_score_of_one_dimension_is_the_crps() -> None:
    x, y = normal(50, 5, 1), normal(50, 1, seed=1)
    torch.testing.assert_close(fair_energy_score(x, y), fair_crps(x, y)[:, 0])


@pytest.mark.parametrize("samples", [2, 20])
def test_crps_of_gaussian_samples_is_the_closed_form(samples: int) -> None:
    """Two samples or twenty: on average the score is that of the law they come from, N(0, 1), at y = 0.7."""
    y = 0.7
    density, below = math.exp(-(y**2) / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(y / math.sqrt(2)))
    exact = y * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)
    scores = fair_crps(normal(40_000, samples, 1), torch.full((40_000, 1), y, dtype=torch.float64))
    error = float(scores.std()) / math.sqrt(len(scores))
    assert abs(float(scores.mean()) - exact) < 3 * error < 0.05


def test_true_law_has_the_best_scores() -> None:
    truth, draws = normal(20_000, 2, seed=1), normal(20_000, 4, 2)
    scores = {width: describe(width * draws, truth) for width in (0.5, 1.0, 2.0)}
    for score in ("crps", "energy_score"):
        assert scores[1.0][score]["1"] < min(scores[0.5][score]["1"], scores[2.0][score]["1"])


def naive_rank(samples: np.ndarray, truth: np.ndarray) -> int:
    pool = np.concatenate([truth[None], samples])
    height = [sum(sorted(pool[:, d]).index(vector[d]) for d in range(pool.shape[1])) for vector in pool]
    return sum(other < height[0] for other in height[1:])


def test_ranks_equal_naive_loops_where_nothing_ties() -> None:
    samples, truth = normal(200, 6, 7), normal(200, 7, seed=1)
    ranks = truth_rank(samples, truth, torch.Generator().manual_seed(0))
    again = truth_rank(samples, truth, torch.Generator().manual_seed(1))
    settled = ranks == again
    assert 100 < int(settled.sum()) < 200, "mean ranks tie now and then, most do not"
    naive = [naive_rank(s, y) for s, y in zip(samples.numpy(), truth.numpy(), strict=True)]
    ties_only_add = torch.minimum(ranks, again) >= torch.tensor(naive)
    assert ties_only_add.all()
    lowest = torch.stack([truth_rank(samples, truth, torch.Generator().manual_seed(s)) for s in range(40)]).amin(dim=0)
    assert lowest.tolist() == naive


def test_rank_in_one_dimension_counts_the_samples_below() -> None:
    samples = torch.tensor([[1.0], [2.0], [3.0]]).expand(4, 3, 1)
    truth = torch.tensor([[0.0], [1.5], [2.5], [9.0]])
    assert truth_rank(samples, truth, torch.Generator()).tolist() == [0, 1, 2, 3]


def test_ties_within_a_dimension_share_their_ranks() -> None:
    """Ranks 2.5 + 5 of the truth beat 5 + 2 of the last sample; lowest or highest ranks of ties would tip that."""
    samples, truth = torch.tensor([[0.0, 0], [0, 2], [0, 3], [1, 1]]), torch.tensor([0.0, 4])
    assert truth_rank(samples, truth, torch.Generator()) == 4
    assert truth_rank(-samples, -truth, torch.Generator()) == 0


def test_equal_vectors_share_all_ranks_evenly() -> None:
    """A deterministic model that is right everywhere is not punished for having no spread."""
    same = torch.ones(7000, 6, 3)
    ranks = truth_rank(same, same[:, 0], torch.Generator().manual_seed(0))
    counts = torch.bincount(ranks, minlength=7)
    assert len(counts) == 7
    assert counts.min() > 1000 - 5 * math.sqrt(1000)


def test_p_value_is_the_chi_square_tail() -> None:
    histogram = torch.tensor([[30, 20, 25, 15, 35], [25, 25, 25, 25, 25]])
    statistic = sum((count - 25) ** 2 / 25 for count in (30, 20, 25, 15, 35))
    tail = math.exp(-statistic / 2) * (1 + statistic / 2)  # 4 degrees of freedom: a finite sum
    assert uniform_p_value(histogram).tolist() == pytest.approx([tail, 1.0], rel=1e-9)


@pytest.mark.parametrize("dim", [1, 5])
def test_p_values_are_uniform_when_truth_and_samples_are_exchangeable(dim: int) -> None:
    """500 repetitions with strongly dependent dimensions: one rank a segment keeps the test honest."""
    repetitions, segments, samples = 500, 120, 7
    common = normal(repetitions, segments, samples + 1, 1)
    pool = 0.9 * common + 0.1 * normal(repetitions, segments, samples + 1, dim, seed=1)
    ranks = truth_rank(pool[:, :, 1:], pool[:, :, 0], torch.Generator().manual_seed(2))
    histograms = torch.nn.functional.one_hot(ranks, samples + 1).sum(dim=1)
    p_values = uniform_p_value(histograms).sort().values
    even = (torch.arange(repetitions) + 0.5) / repetitions
    kolmogorov = float((p_values - even).abs().max())
    assert kolmogorov < 1.63 / math.sqrt(repetitions), "beyond the 1 % level"


@pytest.mark.parametrize(("width", "shift"), [(0.5, 0.0), (1.0, 0.5), (2.0, 0.0)], ids=["narrow", "biased", "wide"])
def test_forecasts_that_are_not_calibrated_are_found(width: float, shift: float) -> None:
    found = describe(width * normal(300, 9, 3) + shift, normal(300, 3, seed=1))
    assert found["ranks"]["1"]["p_value"] < 1e-3
    counts = found["ranks"]["1"]["histogram"]
    edges, middle = counts[0] + counts[-1], counts[4] + counts[5]
    if shift:
        assert counts[0] > 3 * counts[-1], "samples too high: the truth ranks low"
    else:
        assert (edges > middle) == (width < 1), "too narrow: the truth ranks outside; too wide: inside"


@pytest.mark.parametrize(("width", "expected"), [(1.0, 1.0), (0.5, 0.5 * math.sqrt(8 / 7 / (1 + 0.25 / 7)))])
def test_spread_over_skill_is_one_when_calibrated_and_below_when_too_sure(width: float, expected: float) -> None:
    found = describe(width * normal(20_000, 7, 2), normal(20_000, 2, seed=1))
    assert found["spread_skill"]["1"] == pytest.approx(expected, rel=0.02)


def test_a_model_that_is_right_without_spread_has_no_ratio() -> None:
    truth = normal(50, 2)
    found = describe(truth[:, None].expand(50, 4, 2), truth)
    assert found["spread_skill"]["1"] is None
    assert found["crps"]["1"] == found["energy_score"]["1"] == 0.0


def test_described_numbers_are_those_of_the_valid_segments_in_standard_deviations() -> None:
    std = torch.tensor([0.5, 0.0, 3.0], dtype=torch.float64)
    units = Units(std=std, live=std > 0)
    samples, truth = normal(8, 4, 5, 3), normal(8, 5, 3, seed=1)
    valid = torch.arange(5) < torch.tensor([5, 5, 5, 5, 2, 2, 2, 2])[:, None]
    broken = samples.where(valid[:, None, :, None], torch.nan), truth.where(valid[..., None], torch.nan)
    found = describe_spread(*broken, valid, units, Bootstrap(8), [1, 5])

    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert found == describe_spread(samples, truth, valid, units, Bootstrap(8), [1, 5])
    for step, segments in ((1, 8), (5, 4)):
        x, y = (samples[:segments, :, step - 1] / std)[..., [0, 2]], (truth[:segments, step - 1] / std)[..., [0, 2]]
        name, crps = str(step), fair_crps(x, y).mean()
        assert found["crps"][name] == pytest.approx(crps.item(), rel=1e-9)
        assert found["crps_ci95"][name][0] < crps < found["crps_ci95"][name][1]
        energy = fair_energy_score(x, y).mean() / math.sqrt(2)
        assert found["energy_score"][name] == pytest.approx(energy.item(), rel=1e-9)
        ratio = (x.var(dim=1).mean() * 5 / 4 / (x.mean(dim=1) - y).square().mean()).sqrt()
        assert found["spread_skill"][name] == pytest.approx(ratio.item(), rel=1e-9)
        assert sum(found["ranks"][name]["histogram"]) == segments
        assert len(found["ranks"][name]["histogram"]) == 5


def test_unusable_input_is_refused() -> None:
    valid, truth = torch.ones(6, 2, dtype=torch.bool), normal(6, 2, 3)
    with pytest.raises(ValueError, match="at least 2"):
        describe_spread(normal(6, 1, 2, 3), truth, valid, unit_scale(3), Bootstrap(6), [1])
    with pytest.raises(ValueError, match="step 3 .* horizon, 2"):
        describe_spread(normal(6, 4, 2, 3), truth, valid, unit_scale(3), Bootstrap(6), [3])
    samples = normal(6, 4, 2, 3)
    samples[4, 0, 1, 2] = torch.inf
    with pytest.raises(FloatingPointError, match="segment 4"):
        describe_spread(samples, truth, valid, unit_scale(3), Bootstrap(6), [2])
