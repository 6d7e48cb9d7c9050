"""How draws keep to the modes of a law that is known: their distance from the nearest one, and how often each is met.

Modes are given by their centres alone; knows nothing of who drew.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from worldmodel.evaluation.curves import Bootstrap, interval95
from worldmodel.evaluation.inference_metrics import estimate
from worldmodel.shapes import check_shape


@dataclasses.dataclass(frozen=True)
class ModeScores:
    """By moment and agent."""

    nearest: Tensor
    """[B,N] square distance of a draw from the nearest centre, mean over draws, in the environment's units squared."""
    share: Tensor
    """[B,N,J] share of the draws that lie nearest to each mode."""

    def of_agent(self, agent: int) -> ModeScores:
        """Those of one agent, with N = 1."""
        return ModeScores(self.nearest[:, agent : agent + 1], self.share[:, agent : agent + 1])

    @staticmethod
    def join(parts: list[ModeScores]) -> ModeScores:
        """The scores of one batch of moments after the other."""
        return ModeScores(torch.cat([part.nearest for part in parts]), torch.cat([part.share for part in parts]))


def score_modes(samples: Tensor, centres: Tensor) -> ModeScores:
    """Compare draws with the modes of each moment.

    Args:
        samples: [M,B,N,S] inferred states.
        centres: [J,B,S] of the law given what was observed.

    Raises:
        ValueError: when shapes disagree.
    """
    sizes = check_shape("samples", samples, "M B N S")
    check_shape("centres", centres, "J B S", B=sizes["B"], S=sizes["S"])
    drawn = samples.cpu().double()
    distances = [(drawn - centre[None, :, None]).square().sum(dim=-1) for centre in centres.double()]
    distance = torch.stack(distances, dim=-1)  # [M,B,N,J]
    nearest = distance.min(dim=-1)
    met = torch.nn.functional.one_hot(nearest.indices, centres.shape[0])
    return ModeScores(nearest.values.mean(dim=0), met.double().mean(dim=0))


def describe_modes(scores: ModeScores, weight: Tensor, bootstrap: Bootstrap) -> dict[str, Any]:
    """Put mode scores, averaged over agents, into plain numbers with intervals from `bootstrap` over the B moments.

    Args:
        scores: of the draws.
        weight: [J] true probabilities of the modes.
        bootstrap: over moments.

    Returns:
        `nearest_error`: `estimate`, environment's units squared (a perfect sampler of well separated modes has the
        variance within a mode, S std^2); `shares` [J] over all draws; `weight_error`: total variation distance of the
        shares from the weights, in [0, 1]; `weight_error_per_state`: the same of the M draws of one moment, averaged,
        which finds out who always meets one and the same mode; by chance alone above 0 for few draws.
    """
    share = scores.share.mean(dim=1)
    resampled = bootstrap.means(share, torch.ones_like(share, dtype=torch.bool))
    mean = share.mean(dim=0)
    return {
        "nearest_error": estimate(scores.nearest.mean(dim=1), bootstrap),
        "shares": mean.tolist(),
        "weight_error": {
            "value": float(total_variation(mean, weight)),
            "ci95": interval95(total_variation(resampled, weight)[:, None])[0],
        },
        "weight_error_per_state": estimate(total_variation(scores.share, weight).mean(dim=1), bootstrap),
    }


def total_variation(share: Tensor, weight: Tensor) -> Tensor:
    """Half the sum of |share - weight| over the last axis: [*,J] and [J] to [*]."""
    return (share.double() - weight.double()).abs().sum(dim=-1) / 2
