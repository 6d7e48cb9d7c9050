"""How good inferred states are: errors, proper scores and calibration of M draws beside the state that was true.

Pure functions of tensors: knows nothing of inferencers, environments or files. Every quantity is kept by moment, so
that one bootstrap serves all and differences are paired. Axes: B moments, N agents (who may see different things and
infer different states), M draws, S dimensions of the state, L of them that vary in the data.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from worldmodel.evaluation.curves import Bootstrap, interval95
from worldmodel.evaluation.spread import fair_energy_score, truth_rank, uniform_p_value
from worldmodel.evaluation.units import Units
from worldmodel.shapes import check_shape

LEVELS = (50, 90)
"""Per cent of the central intervals whose coverage is measured."""


@dataclasses.dataclass(frozen=True)
class StateScores:
    """What M draws are worth at each moment to each agent; float64, errors in squared standard deviations."""

    error_mean: Tensor
    """[B,N,L] squared error of the mean of the draws."""
    error_draw: Tensor
    """[B,N,L] squared error of one draw, expected: the mean over the draws."""
    energy: Tensor
    """[B,N] fair energy score over the square root of L."""
    covered: dict[int, Tensor]
    """By level in per cent: [B,N,L] 1 where the truth lies within the central interval, else 0."""
    rank: Tensor
    """[B,N] int64 in 0..M: how many draws lie below the truth, by mean rank over dimensions."""
    num_samples: int
    """M."""

    def of_agent(self, agent: int) -> StateScores:
        """Those of one agent, with N = 1."""
        return StateScores(
            self.error_mean[:, agent : agent + 1],
            self.error_draw[:, agent : agent + 1],
            self.energy[:, agent : agent + 1],
            {level: covered[:, agent : agent + 1] for level, covered in self.covered.items()},
            self.rank[:, agent : agent + 1],
            self.num_samples,
        )

    @staticmethod
    def join(parts: list[StateScores]) -> StateScores:
        """The scores of one batch of moments after the other."""
        return StateScores(
            torch.cat([part.error_mean for part in parts]),
            torch.cat([part.error_draw for part in parts]),
            torch.cat([part.energy for part in parts]),
            {level: torch.cat([part.covered[level] for part in parts]) for level in LEVELS},
            torch.cat([part.rank for part in parts]),
            parts[0].num_samples,
        )


def score_draws(samples: Tensor, truth: Tensor, units: Units, generator: torch.Generator) -> StateScores:
    """Judge draws by the state that was true.

    Args:
        samples: [M,B,N,S] inferred states, M at least 2, in the environment's units.
        truth: [B,S].
        units: of the S dimensions.
        generator: on the CPU; breaks ties between ranks.

    Raises:
        ValueError: when shapes disagree, there are fewer than two draws, or no dimension varies.
        FloatingPointError: naming the moment, when a draw is not finite.
    """
    sizes = check_shape("samples", samples, "M B N S", S=units.dim)
    check_shape("truth", truth, "B S", B=sizes["B"], S=units.dim)
    if sizes["M"] < 2:
        raise ValueError(f"{sizes['M']} sample a state: expected at least 2, spread cannot be seen in fewer")
    drawn = units.normalize(samples.cpu()).permute(1, 2, 0, 3)  # [M,B,N,S] -> [B,N,M,L]
    if not bool(torch.isfinite(drawn).all()):
        moment = int(torch.nonzero(~torch.isfinite(drawn))[0, 0])
        raise FloatingPointError(f"the state that was inferred for moment {moment} is not finite")
    true = units.normalize(truth.cpu())[:, None].expand(-1, sizes["N"], -1)  # [B,S] -> [B,N,L]
    difference, ordered = drawn - true.unsqueeze(-2), drawn.sort(dim=-2).values
    return StateScores(
        error_mean=difference.mean(dim=-2).square(),
        error_draw=difference.square().mean(dim=-2),
        energy=fair_energy_score(drawn, true) / math.sqrt(units.num_live),
        covered={level: is_covered(ordered, true, level / 100).double() for level in LEVELS},
        rank=truth_rank(drawn, true, generator),
        num_samples=sizes["M"],
    )


def is_covered(ordered: Tensor, truth: Tensor, level: float) -> Tensor:
    """Whether the truth lies within the central interval of the draws, ends included.

    The ends are the quantiles (1 -+ `level`) / 2 by the rule p (M + 1) of Weibull: the i-th of M draws from the law of
    the truth lies above it with probability i / (M + 1), so that an exact sampler covers `level` with few draws too.
    Beyond the outermost draws there is nothing: with M of less than (1 + level) / (1 - level) the interval is that of
    all draws, which holds an exact truth in (M - 1) / (M + 1) of the cases only.

    Args:
        ordered: [*,M,L] draws, sorted along M.
        truth: [*,L].
        level: in (0, 1).

    Returns:
        [*,L] bool.
    """
    low, high = (quantile(ordered, (1 + sign * level) / 2) for sign in (-1, 1))
    return (low <= truth) & (truth <= high)


def quantile(ordered: Tensor, share: float) -> Tensor:
    """The quantile `share` in (0, 1) of sorted draws [*,M,L], by Weibull's rule, between neighbours linear: [*,L]."""
    num = ordered.shape[-2]
    position = min(max(share * (num + 1), 1.0), float(num)) - 1
    below = min(int(position), num - 2) if num > 1 else 0
    first, second = ordered[..., below, :], ordered[..., min(below + 1, num - 1), :]
    return first + (position - below) * (second - first)


def attainable_coverage(level: float, num_samples: int) -> float:
    """What an exact sampler covers with M = `num_samples` draws: `level`, or less where M is too small for it."""
    return min(level, (num_samples - 1) / (num_samples + 1))


def estimate(values: Tensor, bootstrap: Bootstrap) -> dict[str, Any]:
    """Mean of `values` [B] and its 95 % interval: {"value": x, "ci95": [low, high]}."""
    return {"value": float(values.mean()), "ci95": interval95(_resampled(values[:, None], bootstrap))[0]}


def estimate_dimensions(values: Tensor, bootstrap: Bootstrap) -> dict[str, Any]:
    """`estimate` of the mean over dimensions of `values` [B,L], and under `by_dimension` lists of each."""
    by_dimension = {"value": values.mean(dim=0).tolist(), "ci95": interval95(_resampled(values, bootstrap))}
    return {**estimate(values.mean(dim=1), bootstrap), "by_dimension": by_dimension}


def describe_scores(scores: StateScores, bootstrap: Bootstrap) -> dict[str, Any]:
    """Put scores, averaged over agents, into plain numbers with intervals from `bootstrap` over the B moments.

    Returns:
        `error_mean`, `error_draw` and, under `coverage`, each level: `estimate_dimensions`; `energy_score`:
        `estimate`; `ranks`: a `histogram` of M + 1 counts over moments and agents, and the `p_value` of it being
        uniform, None for several agents, whose ranks at one moment depend on each other.
    """
    counts = torch.bincount(scores.rank.flatten(), minlength=scores.num_samples + 1)
    is_one = scores.rank.shape[1] == 1
    return {
        "error_mean": estimate_dimensions(scores.error_mean.mean(dim=1), bootstrap),
        "error_draw": estimate_dimensions(scores.error_draw.mean(dim=1), bootstrap),
        "energy_score": estimate(scores.energy.mean(dim=1), bootstrap),
        "coverage": {
            str(level): estimate_dimensions(covered.mean(dim=1), bootstrap) for level, covered in scores.covered.items()
        },
        "ranks": {"histogram": counts.tolist(), "p_value": float(uniform_p_value(counts)) if is_one else None},
    }


def describe_score_difference(later: StateScores, earlier: StateScores, bootstrap: Bootstrap) -> dict[str, Any]:
    """By how much `later` exceeds `earlier` on the same moments, paired: `estimate` of both errors and the energy."""
    pairs = {
        "error_mean": (later.error_mean.mean(dim=-1), earlier.error_mean.mean(dim=-1)),
        "error_draw": (later.error_draw.mean(dim=-1), earlier.error_draw.mean(dim=-1)),
        "energy_score": (later.energy, earlier.energy),
    }
    return {name: estimate((a - b).mean(dim=1), bootstrap) for name, (a, b) in pairs.items()}


def _resampled(values: Tensor, bootstrap: Bootstrap) -> Tensor:
    """Means [R,H] of `values` [B,H] under every resample."""
    return bootstrap.means(values, torch.ones_like(values, dtype=torch.bool))
