"""Is a model as unsure as it is wrong: scores and ranks that look at all samples of a forecast.

A model that is sure and wrong has the same error as one that is unsure and right; these tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldmodel.evaluation.curves import Bootstrap, check_steps, interval95, masked_mean
from worldmodel.evaluation.units import Units
from worldmodel.shapes import check_shape

TIE_SEED = 0
"""Seed of the draws that break ties between ranks: the same forecast always gets the same ranks."""


def describe_spread(
    samples: Tensor, truth: Tensor, valid: Tensor, units: Units, bootstrap: Bootstrap, steps: Sequence[int]
) -> dict[str, Any]:
    """Judge the samples of a forecast as a distribution, at some of its steps.

    Args:
        samples: [B,M,H,D] forecasts, at least two a segment.
        truth: [B,H,D] what happened.
        valid: [B,H] bool; values elsewhere are never looked at, NaN included.
        units: of the D dimensions; scores are in standard deviations, over the dimensions that vary.
        bootstrap: over the B segments.
        steps: (from 1) to report.

    Returns:
        By step: `crps` (mean over dimensions) with its 95 % interval `crps_ci95`; `energy_score` divided by the
        square root of the number of dimensions; `ranks` with a `histogram` of M+1 counts and the `p_value` of it being
        uniform; `spread_skill`: spread of the samples over the error of their mean, 1 when calibrated, below 1 when
        too sure, None when the mean is never wrong. With fewer than about 5 segments a rank the p-value is rough.

    Raises:
        ValueError: with fewer than two samples, when shapes disagree, a step lies outside 1..H, no dimension varies,
            or `valid` is not usable.
        FloatingPointError: when a forecast or the truth is not finite at a valid step that is reported.
    """
    sizes = check_shape("samples", samples, "B M H D", D=units.dim)
    check_shape("truth", truth, "B H D", **sizes)
    check_shape("valid", valid, "B H", **sizes)
    if sizes["M"] < 2:
        raise ValueError(f"{sizes['M']} sample a segment: expected at least 2, spread cannot be seen in fewer")
    check_steps(steps, valid)
    index = [step - 1 for step in steps]
    mask = valid[:, index]
    drawn = _known(samples[:, :, index].transpose(1, 2), mask[..., None, None], units)
    happened = _known(truth[:, index], mask[..., None], units)
    crps = fair_crps(drawn, happened).mean(dim=-1)
    energy = fair_energy_score(drawn, happened) / math.sqrt(units.num_live)
    columns = {
        "crps": masked_mean(crps, mask).tolist(),
        "crps_ci95": interval95(bootstrap.means(crps, mask)),
        "energy_score": masked_mean(energy, mask).tolist(),
        "ranks": _rank_histograms(drawn, happened, mask),
        "spread_skill": _spread_skill(drawn, happened, mask),
    }
    names = [str(step) for step in steps]
    return {key: dict(zip(names, values, strict=True)) for key, values in columns.items()}


def fair_crps(samples: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score of each dimension; unbiased in the number of samples.

    mean |x_i - y| - mean over pairs |x_i - x_j| / 2 (Ferro 2014, "Fair scores for ensemble forecasts"): its expectation
    is smallest when the samples follow the law of the truth, however few they are.

    Args:
        samples: [*,M,D], M at least 2.
        truth: [*,D].

    Returns:
        [*,D]; single values may be negative.
    """
    num = samples.shape[-2]
    # The sum of all distances needs no pairs: in sorted order, value i (from 0) is added i times and taken off M-1-i.
    coefficient = 2 * torch.arange(num, dtype=samples.dtype, device=samples.device) - (num - 1)
    distances = (samples.sort(dim=-2).values * coefficient[:, None]).sum(dim=-2)
    return (samples - truth.unsqueeze(-2)).abs().mean(dim=-2) - distances / (num * (num - 1))


def fair_energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """The same score for whole vectors, with Euclidean distances, so that wrong correlations show: [*,M,D] to [*]."""
    num = samples.shape[-2]
    # Distances by matrix products would lose the small ones to cancellation.
    pairs = torch.cdist(samples, samples, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=(-2, -1))
    error = (samples - truth.unsqueeze(-2)).square().sum(dim=-1).sqrt().mean(dim=-1)
    return error - pairs / (2 * num * (num - 1))


def truth_rank(samples: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    """Where the truth stands among the samples: one rank a forecast, uniform if they follow the same law.

    Vectors are ordered by their mean rank over dimensions (Thorarinsdottir, Scheuerer and Heinz 2016, "Assessing the
    calibration of high-dimensional ensemble forecasts using rank histograms"), so that dependent dimensions count as
    one observation. Ties share their ranks within a dimension and are broken at random between vectors.

    Args:
        samples: [*,M,D].
        truth: [*,D].
        generator: on the CPU; breaks ties.

    Returns:
        [*] int64 in 0..M.
    """
    pool = torch.cat([truth.unsqueeze(-2), samples], dim=-2).transpose(-2, -1).contiguous()
    ordered = pool.sort(dim=-1).values
    # Twice the mean rank, up to a constant. Sums of integers are exact, so equal vectors tie exactly.
    below = torch.searchsorted(ordered, pool, right=False) + torch.searchsorted(ordered, pool, right=True)
    height = below.sum(dim=-2)
    own, others = height[..., :1], height[..., 1:]
    ties = (others == own).sum(dim=-1)
    draw = torch.rand(ties.shape, generator=generator, dtype=torch.float64).to(ties.device)
    return (others < own).sum(dim=-1) + (draw * (ties + 1)).long()


def uniform_p_value(histogram: Tensor) -> Tensor:
    """Probability of a histogram [*,bins] at least as uneven under equal chances (Pearson's chi-square test): [*]."""
    counts = histogram.double()
    expected = counts.mean(dim=-1, keepdim=True)
    statistic = ((counts - expected).square() / expected).sum(dim=-1)
    freedom = torch.full_like(statistic, counts.shape[-1] - 1)
    return torch.special.gammaincc(freedom / 2, statistic / 2)


def _known(values: Tensor, mask: Tensor, units: Units) -> Tensor:
    """Normalised values, zeros where not valid."""
    known = units.normalize(torch.where(mask, values, 0.0))
    if not bool(torch.isfinite(known).all()):
        segment = int(torch.nonzero(~torch.isfinite(known))[0, 0])
        raise FloatingPointError(f"the forecast or the truth of segment {segment} is not finite at a valid step")
    return known


def _rank_histograms(samples: Tensor, truth: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    ranks = truth_rank(samples, truth, torch.Generator().manual_seed(TIE_SEED))
    one_hot = torch.nn.functional.one_hot(ranks, samples.shape[-2] + 1)
    histograms = (one_hot * mask[..., None]).sum(dim=0)
    p_values = uniform_p_value(histograms)
    return [{"histogram": h, "p_value": p} for h, p in zip(histograms.tolist(), p_values.tolist(), strict=True)]


def _spread_skill(samples: Tensor, truth: Tensor, mask: Tensor) -> list[float | None]:
    """Spread over error (Fortin et al. 2014, "Why should ensemble spread match the RMSE of the ensemble mean?")."""
    num = samples.shape[-2]
    spread = masked_mean(samples.var(dim=-2).mean(dim=-1), mask) * (num + 1) / num
    error = masked_mean((samples.mean(dim=-2) - truth).square().mean(dim=-1), mask)
    return [math.sqrt(s / e) if e > 0 else None for s, e in zip(spread.tolist(), error.tolist(), strict=True)]
