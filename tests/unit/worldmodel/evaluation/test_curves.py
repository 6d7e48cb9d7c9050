"""Curves and intervals against naive loops, closed forms, and what must not matter."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.evaluation.curves import (
    Bootstrap,
    StepErrors,
    describe_curve,
    describe_difference,
    interval95,
    step_errors,
)
from worldmodel.evaluation.units import Units

MARKS = (1, 3, 6)


def random_case(seed: int, segments: int = 9, samples: int = 3, horizon: int = 6, dim: int = 4) -> dict[str, Tensor]:
    """Forecasts, truth, and ends at random steps; the first segment never ends."""
    generator = torch.Generator().manual_seed(seed)
    lasts = torch.randint(1, horizon + 1, (segments,), generator=generator)
    lasts[0] = horizon
    return {
        "samples": torch.randn(segments, samples, horizon, dim, generator=generator),
        "truth": torch.randn(segments, horizon, dim, generator=generator),
        "valid": torch.arange(horizon) < lasts[:, None],
    }


def random_units(dim: int = 4) -> Units:
    scale = torch.tensor([0.5, 2.0, 0.0, 7.0])[:dim]
    return Units.of(torch.randn(100, dim, generator=torch.Generator().manual_seed(99)) * scale)


def from_values(values: Tensor, valid: Tensor | None = None) -> StepErrors:
    valid = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
    return StepErrors(normalized=values.double(), raw=values.double(), valid=valid)


def test_errors_equal_naive_loops() -> None:
    case, units = random_case(0), random_units()
    errors = step_errors(**case, units=units)
    samples, truth, std = case["samples"].double(), case["truth"].double(), units.std
    for b, t in np.ndindex(9, 6):
        terms = [abs(float(samples[b, m, t, d] - truth[b, t, d])) for m in range(3) for d in (0, 1, 3)]
        scaled = [e / float(std[d]) for e, d in zip(terms, [0, 1, 3] * 3, strict=True)]
        on = bool(case["valid"][b, t])
        assert errors.raw[b, t].item() == pytest.approx(np.mean(terms) if on else 0.0, rel=1e-12)
        assert errors.normalized[b, t].item() == pytest.approx(np.mean(scaled) if on else 0.0, rel=1e-12)


def test_curve_equals_naive_loops() -> None:
    errors = step_errors(**random_case(1), units=random_units())
    curve = describe_curve(errors, Bootstrap(9), MARKS)
    rows = [errors.normalized[b][errors.valid[b]].tolist() for b in range(9)]
    means = [np.mean([row[t] for row in rows if len(row) > t]) for t in range(6)]

    np.testing.assert_allclose(curve["e"], means, rtol=1e-12)
    np.testing.assert_allclose(curve["e_std"], [np.std([row[t] for row in rows if len(row) > t]) for t in range(6)])
    assert list(curve["cumulative"]) == ["1", "3", "6"]
    for mark in MARKS:
        whole = [sum(row[:mark]) for row in rows if len(row) >= mark]
        assert curve["cumulative"][str(mark)] == pytest.approx(sum(means[:mark]), rel=1e-12)
        assert curve["cumulative_std"][str(mark)] == pytest.approx(np.std(whole), rel=1e-9, abs=1e-12)
    raw = [np.mean([float(errors.raw[b, t]) for b in range(9) if errors.valid[b, t]]) for t in range(6)]
    np.testing.assert_allclose(curve["raw"]["e"], raw, rtol=1e-12)
    assert curve["raw"]["cumulative"]["3"] == pytest.approx(sum(raw[:3]), rel=1e-12)


def test_intervals_equal_a_loop_over_resampled_segments() -> None:
    errors = step_errors(**random_case(2, segments=5), units=random_units())
    bootstrap = Bootstrap(5, num_resamples=200, seed=3)
    curve = describe_curve(errors, bootstrap, MARKS)
    resampled = np.full((200, 6), np.nan)
    for r, counts in enumerate(bootstrap.weights.long().tolist()):
        chosen = [b for b, count in enumerate(counts) for _ in range(count)]
        assert len(chosen) == 5
        for t in range(6):
            values = [float(errors.normalized[b, t]) for b in chosen if errors.valid[b, t]]
            resampled[r, t] = np.mean(values) if values else np.nan

    assert np.isnan(resampled).any(), "the case must hold a resample without a valid segment"
    np.testing.assert_allclose(curve["e_ci95"], np.nanpercentile(resampled, [2.5, 97.5], axis=0).T, rtol=1e-9)
    total = np.nanpercentile(np.cumsum(resampled, axis=1), [2.5, 97.5], axis=0).T
    for mark in MARKS:
        np.testing.assert_allclose(curve["ci95"][str(mark)], total[mark - 1], rtol=1e-9)


def test_interval_of_many_segments_is_the_normal_one() -> None:
    values = torch.rand(2000, 1, generator=torch.Generator().manual_seed(0))
    low, high = describe_curve(from_values(values), Bootstrap(2000, num_resamples=4000), [1])["ci95"]["1"]
    half = 1.96 * math.sqrt(1 / 12 / 2000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (high + low) / 2 == pytest.approx(float(values.mean()), abs=0.1 * half)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    bootstrap = Bootstrap(100, num_resamples=400)
    covered = 0
    for _ in range(400):
        low, high = describe_curve(from_values(torch.rand(100, 1, generator=generator)), bootstrap, [1])["ci95"]["1"]
        covered += low <= 0.5 <= high
    assert 0.91 < covered / 400 < 0.98


@given(seed=st.integers(0, 2**16))
def test_cumulated_error_never_falls(seed: int) -> None:
    curve = describe_curve(step_errors(**random_case(seed), units=random_units()), Bootstrap(9, 100), range(1, 7))
    totals = list(curve["cumulative"].values())
    assert all(before <= after for before, after in zip(totals[:-1], totals[1:], strict=True))
    assert totals[0] == curve["e"][0]


@given(seed=st.integers(0, 2**16))
def test_no_difference_to_itself(seed: int) -> None:
    case = random_case(seed)
    one, same = (step_errors(**case, units=random_units()) for _ in range(2))
    difference = describe_difference(one, same, Bootstrap(9, 100), MARKS)
    assert difference == {str(mark): {"mean": 0.0, "ci95": [0.0, 0.0]} for mark in MARKS}


@given(seed=st.integers(0, 2**16), power=st.integers(-8, 8))
def test_the_units_of_a_dimension_do_not_matter(seed: int, power: int) -> None:
    case, rows = random_case(seed), torch.randn(50, 4, generator=torch.Generator().manual_seed(seed))
    scale = torch.tensor([1.0, 3.0**power, 1.0, 10.0])
    other = case | {"samples": case["samples"] * scale, "truth": case["truth"] * scale}
    here = step_errors(**case, units=Units.of(rows))
    there = step_errors(**other, units=Units.of(rows * scale))
    torch.testing.assert_close(here.normalized, there.normalized, rtol=1e-5, atol=1e-7)
    if power:
        assert not torch.allclose(here.raw, there.raw)


@given(seed=st.integers(0, 2**16))
def test_invalid_steps_have_no_influence(seed: int) -> None:
    case, units, bootstrap = random_case(seed), random_units(), Bootstrap(9, 100)
    broken = dict(case)
    broken["samples"] = torch.where(case["valid"][:, None, :, None], case["samples"], torch.nan)
    broken["truth"] = torch.where(case["valid"][..., None], case["truth"], torch.inf)
    here, there = step_errors(**case, units=units), step_errors(**broken, units=units)
    assert describe_curve(here, bootstrap, MARKS) == describe_curve(there, bootstrap, MARKS)
    normalized, raw = (torch.where(here.valid, values, torch.nan) for values in (here.normalized, here.raw))
    holed = StepErrors(normalized, raw, here.valid)
    assert describe_curve(here, bootstrap, MARKS) == describe_curve(holed, bootstrap, MARKS)
    assert describe_difference(here, holed, bootstrap, [6])["6"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_pairing_sees_what_separate_intervals_hide() -> None:
    """Segments differ far more than the two models do: only the paired difference can tell them apart."""
    generator = torch.Generator().manual_seed(0)
    hard = 10 * torch.rand(100, 1, generator=generator).expand(100, 6)
    a = from_values(hard + 0.2 + 0.05 * torch.randn(100, 6, generator=generator))
    b = from_values(hard)
    bootstrap = Bootstrap(100)
    low, high = describe_difference(a, b, bootstrap, [6])["6"]["ci95"]
    assert 0 < 6 * 0.2 - 0.1 < low < high < 6 * 0.2 + 0.1
    over, under = describe_curve(a, bootstrap, [6])["ci95"]["6"], describe_curve(b, bootstrap, [6])["ci95"]["6"]
    assert over[0] < under[1], "the intervals of the two alone overlap"


def test_difference_is_that_of_the_cumulated_errors() -> None:
    case, units, bootstrap = random_case(4), random_units(), Bootstrap(9)
    a = step_errors(**case, units=units)
    b = step_errors(case["samples"][:, :1] * 2, case["truth"], case["valid"], units)
    difference, reverse = describe_difference(a, b, bootstrap, MARKS), describe_difference(b, a, bootstrap, MARKS)
    curves = [describe_curve(errors, bootstrap, MARKS)["cumulative"] for errors in (a, b)]
    for mark in map(str, MARKS):
        assert difference[mark]["mean"] == pytest.approx(curves[0][mark] - curves[1][mark], rel=1e-9)
        low, high = difference[mark]["ci95"]
        assert reverse[mark]["ci95"] == pytest.approx([-high, -low])


def test_samples_are_judged_one_by_one_and_results_are_plain() -> None:
    """The error of one draw, not of the mean of the draws: two draws that err in opposite ways are both wrong."""
    samples = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    units = Units(std=torch.ones(1, dtype=torch.float64), live=torch.ones(1, dtype=torch.bool))
    errors = step_errors(samples, torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), units)
    curve = describe_curve(errors, Bootstrap(1), [1])
    assert curve == json.loads(json.dumps(curve, allow_nan=False))
    assert curve == {
        "e": [1.0],
        "e_ci95": [[1.0, 1.0]],
        "e_std": [0.0],
        "cumulative": {"1": 1.0},
        "cumulative_std": {"1": 0.0},
        "ci95": {"1": [1.0, 1.0]},
        "raw": {"e": [1.0], "cumulative": {"1": 1.0}},
    }


def test_unusable_input_is_refused() -> None:
    case, units = random_case(5), random_units()
    none_left = case["valid"].clone()
    none_left[:, 4:] = False
    with pytest.raises(ValueError, match="no segment is valid at step 5 of 6"):
        step_errors(case["samples"], case["truth"], none_left, units)
    resumed = torch.ones(9, 6, dtype=torch.bool)
    resumed[2, 3] = False
    with pytest.raises(ValueError, match="segment 2 is valid at step 5 but not at step 4"):
        step_errors(case["samples"], case["truth"], resumed, units)
    case["samples"][0, 1, 4, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="segment 0 is not finite at step 5"):
        step_errors(**case, units=units)
    errors = from_values(torch.rand(9, 6))
    with pytest.raises(ValueError, match="step 7 .* horizon, 6"):
        describe_curve(errors, Bootstrap(9), [1, 7])
    with pytest.raises(ValueError, match="same segments"):
        describe_difference(errors, from_values(torch.rand(9, 6), case["valid"]), Bootstrap(9), [1])
    with pytest.raises(ValueError, match="axis B is 9, not 8"):
        describe_curve(errors, Bootstrap(8), [1])
    with pytest.raises(ValueError, match="num_resamples = 10"):
        Bootstrap(9, num_resamples=10)
    with pytest.raises(ValueError, match="num_segments = 0"):
        Bootstrap(0)


def test_drawing_episodes_keeps_their_segments_together() -> None:
    groups = torch.tensor([7, 3, 3, 9, 7, 7])
    weights = Bootstrap(6, num_resamples=500, groups=groups).weights
    for one in (3, 7, 9):
        counts = weights[:, groups == one]
        assert torch.equal(counts, counts[:, :1].expand_as(counts))
    assert torch.equal(weights[:, [1, 0, 3]].sum(dim=1), torch.full((500,), 3.0, dtype=torch.float64))


def test_segments_that_resemble_each_other_widen_the_interval_of_episodes_only() -> None:
    generator = torch.Generator().manual_seed(0)
    episode = torch.randn(8, 1, generator=generator).repeat_interleave(25, dim=0).double()  # all segments of one agree
    valid = torch.ones(200, 1, dtype=torch.bool)
    widths = []
    for groups in (None, torch.arange(8).repeat_interleave(25)):
        low, high = interval95(Bootstrap(200, groups=groups).means(episode, valid))[0]
        widths.append(high - low)
    assert 3.0 < widths[1] / widths[0] < 7.0  # sqrt(25) = 5
