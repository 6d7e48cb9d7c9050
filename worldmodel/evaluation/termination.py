"""Does a model know when an episode ends: are endings ranked above other steps, and are its probabilities true?

Steps of all segments are pooled; the probabilities of a segment's M samples are averaged first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodel.shapes import check_shape

NUM_BINS = 10
"""Equal-width bins of the predicted probability, the customary number for a reliability diagram."""


def describe_termination(probability: Tensor, terminated: Tensor, valid: Tensor) -> dict[str, Any]:
    """Compare predicted probabilities of termination with what happened.

    Args:
        probability: [B,M,H] in [0, 1], that the episode terminates at this step.
        terminated: [B,H] bool, whether it did.
        valid: [B,H] bool; values elsewhere are never looked at, NaN included.

    Returns:
        `auc` (None unless some steps terminate and some do not), `brier` score, `ece` expected calibration error,
        `base_rate`, `mean_predicted`, counts `positives` and `steps`, and ten `bins` with the mean `predicted`
        probability, the `observed` frequency (both None in an empty bin) and the `count` of steps.

    Raises:
        ValueError: when shapes disagree, no step is valid, or a probability leaves [0, 1].
    """
    sizes = check_shape("probability", probability, "B M H")
    check_shape("terminated", terminated, "B H", **sizes)
    check_shape("valid", valid, "B H", **sizes)
    if not bool(valid.any()):
        raise ValueError("no step is valid: there is nothing to compare the predicted terminations with")
    samples = probability.double().transpose(1, 2)[valid]
    if not bool(((samples >= 0) & (samples <= 1)).all()):
        wrong = samples[~((samples >= 0) & (samples <= 1))][0].item()
        raise ValueError(f"a probability of termination is {wrong:g}, expected one between 0 and 1")
    predicted, happened = samples.mean(dim=1), terminated[valid]
    bins, ece = _calibration(predicted, happened.double())
    return {
        "auc": area_under_curve(predicted, happened),
        "brier": float((predicted - happened.double()).square().mean()),
        "ece": ece,
        "base_rate": float(happened.double().mean()),
        "mean_predicted": float(predicted.mean()),
        "positives": int(happened.sum()),
        "steps": len(happened),
        "bins": bins,
    }


def area_under_curve(score: Tensor, positive: Tensor) -> float | None:
    """Probability that a positive scores above a negative, ties counting half (the Mann-Whitney statistic).

    Args:
        score: [B] finite.
        positive: [B] bool.

    Returns:
        A number in [0, 1], 0.5 for chance; None unless there are both kinds.
    """
    negatives, positives = score[~positive].sort().values, score[positive]
    if len(negatives) == 0 or len(positives) == 0:
        return None
    below = torch.searchsorted(negatives, positives, right=False)
    not_above = torch.searchsorted(negatives, positives, right=True)
    return float((below + not_above).double().mean() / (2 * len(negatives)))


def _calibration(predicted: Tensor, happened: Tensor) -> tuple[list[dict[str, Any]], float]:
    """The bins of a reliability diagram, and the gap between its two axes averaged over steps."""
    index = (predicted * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    count = torch.bincount(index, minlength=NUM_BINS)
    sum_predicted = torch.bincount(index, weights=predicted, minlength=NUM_BINS)
    sum_happened = torch.bincount(index, weights=happened, minlength=NUM_BINS)
    ece = float((sum_predicted - sum_happened).abs().sum() / count.sum())
    rows = zip(sum_predicted.tolist(), sum_happened.tolist(), count.tolist(), strict=True)
    bins = [{"predicted": p / n if n else None, "observed": h / n if n else None, "count": n} for p, h, n in rows]
    return bins, ece
