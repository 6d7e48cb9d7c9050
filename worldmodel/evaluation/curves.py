"""Prediction error against the number of imagined steps, with intervals that say how much the segments matter.

e_t is the mean error over the segments that still go on at step t, and E_H the sum of e_1..e_H. Everything that is
compared shares one set of bootstrap weights, so that differences are paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.evaluation.units import Units
from worldmodel.shapes import check_shape

FEWEST_RESAMPLES = 100
"""Below this the 2.5 % and 97.5 % quantiles would be one or two resamples."""


@dataclasses.dataclass(frozen=True)
class StepErrors:
    """What one forecast got wrong at each step of each segment; zeros where not valid."""

    normalized: Tensor
    """[B,H] float64: |error| in standard deviations of the data, mean over samples and the dimensions that vary."""
    raw: Tensor
    """[B,H] float64: the same in the environment's own units."""
    valid: Tensor
    """[B,H] bool: the segment still goes on; once over, it stays over."""


def step_errors(samples: Tensor, truth: Tensor, valid: Tensor, units: Units) -> StepErrors:
    """Absolute error of each step: what one draw of the model is expected to be wrong by.

    Args:
        samples: [B,M,H,D] forecasts; one sample is enough.
        truth: [B,H,D] what happened.
        valid: [B,H] bool; values elsewhere are never looked at, NaN included.
        units: of the D dimensions.

    Raises:
        ValueError: when shapes disagree, no dimension varies, or `valid` is not usable (see `check_valid`).
        FloatingPointError: when a forecast or the truth is not finite at a valid step.
    """
    sizes = check_shape("samples", samples, "B M H D", D=units.dim)
    check_shape("truth", truth, "B H D", **sizes)
    check_shape("valid", valid, "B H", **sizes)
    check_valid(valid)
    difference = samples.double() - truth.double()[:, None]
    error = torch.where(valid[:, None, :, None], difference, 0.0).abs()
    normalized = units.normalize(error).mean(dim=(1, 3))
    if not bool(torch.isfinite(normalized).all()):
        segment, step = torch.nonzero(~torch.isfinite(normalized))[0].tolist()
        raise FloatingPointError(f"the error of segment {segment} is not finite at step {step + 1}")
    return StepErrors(normalized=normalized, raw=units.live_part(error).mean(dim=(1, 3)), valid=valid)


def check_valid(valid: Tensor) -> None:
    """Refuse a mask [B,H] under which a mean per step does not exist or a segment comes back from its end.

    Raises:
        ValueError: naming the step (from 1) at which no segment is left, or the segment that goes on after its end.
    """
    empty = torch.nonzero(~valid.any(dim=0))
    if len(empty) > 0:
        raise ValueError(
            f"no segment is valid at step {int(empty[0, 0]) + 1} of {valid.shape[1]}:"
            " ask for more segments or a shorter horizon"
        )
    resumed = torch.nonzero(valid[:, 1:] & ~valid[:, :-1])
    if len(resumed) > 0:
        segment, step = resumed[0].tolist()
        raise ValueError(f"segment {segment} is valid at step {step + 2} but not at step {step + 1}")


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the segments that are valid: [B,H] to [H]."""
    return torch.where(valid, values, 0.0).sum(dim=0) / valid.sum(dim=0)


class Bootstrap:
    """Resamples of the segments: how often each segment counts in each, the same for everything that is compared.

    `weights` is [R,B] float64, each row a draw of B segments with replacement; with `groups`, a draw of whole groups.
    """

    def __init__(
        self, num_segments: int, num_resamples: int = 1000, seed: int = 0, groups: Tensor | None = None
    ) -> None:
        """Draw the weights.

        Args:
            num_segments: B.
            num_resamples: R.
            seed: of the draw.
            groups: [B] the episode of each segment. Segments of one episode resemble each other; drawing segments
                one by one takes them for independent, and the intervals come out too narrow. Draws episodes instead.

        Raises:
            ValueError: without segments, or with too few resamples for a 95 % interval.
        """
        if num_segments < 1:
            raise ValueError(f"num_segments = {num_segments}: expected at least 1")
        if num_resamples < FEWEST_RESAMPLES:
            raise ValueError(f"num_resamples = {num_resamples}: expected at least {FEWEST_RESAMPLES}")
        member = torch.arange(num_segments) if groups is None else torch.unique(groups, return_inverse=True)[1].cpu()
        check_shape("groups", member, "B", B=num_segments)
        num_groups = int(member.max()) + 1
        even = np.full(num_groups, 1 / num_groups)
        counts = np.random.default_rng(seed).multinomial(num_groups, even, size=num_resamples)
        self.weights = torch.from_numpy(counts).double()[:, member]

    def means(self, values: Tensor, valid: Tensor) -> Tensor:
        """Mean over valid segments under every resample: [B,H] to [R,H].

        NaN where a resample holds no segment that is valid at the step.
        """
        check_shape("values", values, "B H", B=self.weights.shape[1])
        weights = self.weights.to(values.device)
        return (weights @ torch.where(valid, values, 0.0)) / (weights @ valid.double())


def interval95(resampled: Tensor) -> list[list[float]]:
    """Percentile interval of each column of [R,H], as H pairs [low, high]; resamples that are NaN do not count."""
    quantiles = torch.tensor([0.025, 0.975], dtype=resampled.dtype, device=resampled.device)
    return torch.nanquantile(resampled, quantiles, dim=0).T.tolist()


def describe_curve(errors: StepErrors, bootstrap: Bootstrap, marks: Sequence[int]) -> dict[str, Any]:
    """Put a forecast's errors into plain numbers.

    Args:
        errors: of one forecast.
        bootstrap: over its B segments.
        marks: steps (from 1) at which the cumulated error is reported.

    Returns:
        In standard deviations of the data: `e` [H], its 95 % interval `e_ci95` [H][2] and its standard deviation over
        segments `e_std` [H]; by mark `cumulative` E_t with interval `ci95`, and `cumulative_std`, the standard
        deviation of the sum over the segments that last until the mark. `raw` holds `e` and `cumulative` in the
        environment's own units. Standard deviations are those of the population.

    Raises:
        ValueError: when a mark lies outside 1..H, or `errors.valid` is not usable.
    """
    check_steps(marks, errors.valid)
    mean = masked_mean(errors.normalized, errors.valid)
    raw = masked_mean(errors.raw, errors.valid)
    resampled = bootstrap.means(errors.normalized, errors.valid)
    total = torch.where(errors.valid, errors.normalized, 0.0).cumsum(dim=1)
    return {
        "e": mean.tolist(),
        "e_ci95": interval95(resampled),
        "e_std": _masked_std(errors.normalized, errors.valid).tolist(),
        "cumulative": _at(marks, mean.cumsum(dim=0).tolist()),
        "cumulative_std": _at(marks, _masked_std(total, errors.valid).tolist()),
        "ci95": _at(marks, interval95(resampled.cumsum(dim=1))),
        "raw": {"e": raw.tolist(), "cumulative": _at(marks, raw.cumsum(dim=0).tolist())},
    }


def describe_difference(a: StepErrors, b: StepErrors, bootstrap: Bootstrap, marks: Sequence[int]) -> dict[str, Any]:
    """By how much the cumulated error of `a` exceeds that of `b`, paired by segment.

    The two may come from two orders or two models, as long as they forecast the same segments.

    Returns:
        By mark `mean`, in standard deviations of the data, and its 95 % interval `ci95`.

    Raises:
        ValueError: when the two were not measured on the same segments, or as for `describe_curve`.
    """
    if not torch.equal(a.valid, b.valid):
        raise ValueError("the two forecasts are valid at different steps: compare them on the same segments")
    check_steps(marks, a.valid)
    difference = torch.where(a.valid, a.normalized - b.normalized, 0.0)
    mean = masked_mean(difference, a.valid).cumsum(dim=0).tolist()
    intervals = interval95(bootstrap.means(difference, a.valid).cumsum(dim=1))
    return _at(marks, [{"mean": m, "ci95": ci} for m, ci in zip(mean, intervals, strict=True)])


def _masked_std(values: Tensor, valid: Tensor) -> Tensor:
    return masked_mean((values - masked_mean(values, valid)).square(), valid).sqrt()


def check_steps(marks: Sequence[int], valid: Tensor) -> None:
    """Refuse steps outside 1..H, and a mask [B,H] that is not usable.

    Raises:
        ValueError: naming the step.
    """
    check_valid(valid)
    horizon = valid.shape[1]
    outside = [mark for mark in marks if not 1 <= mark <= horizon]
    if outside:
        raise ValueError(f"step {outside[0]} is asked for: expected steps between 1 and the horizon, {horizon}")


def _at(marks: Sequence[int], per_step: list[Any]) -> dict[str, Any]:
    """Pick marks (from 1) out of a list with one entry a step; keys are strings, as JSON wants them."""
    return {str(mark): per_step[mark - 1] for mark in marks}
