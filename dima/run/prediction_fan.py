"""A typical segment's true and imagined states, for the figure that shows them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from dima.run.prediction import Task
from worldmodel.evaluation.segments import TestSegments

NUM_DIMS = 4
"""Dimensions of the state that are shown."""


FanLines = list[list[list[float]]]
"""By dimension, M lines of H+1 numbers."""


@dataclasses.dataclass(frozen=True)
class FanChoice:
    """Which segment is shown, and which dimensions of its state."""

    row: int
    """Among the segments."""
    dims: Tensor
    """[<=4] int64."""


def choose_fan(task: Task, segments: TestSegments) -> FanChoice | None:
    """A whole segment with the median distance from start to end; the dimensions that move most over all segments.

    None where no segment is whole, or no state varies.
    """
    whole = torch.nonzero(segments.valid.all(dim=1))[:, 0]
    unit = task.units["state"]
    if len(whole) == 0 or unit.num_live == 0:
        return None
    first, last = segments.context.state[:, -1], segments.state[:, -1]
    moved = ((last - first).double() / unit.std.clamp(min=1e-12)).abs()[whole] * unit.live
    dims = moved.mean(dim=0).topk(min(NUM_DIMS, unit.num_live)).indices.sort().values
    return FanChoice(int(whole[moved.mean(dim=1).argsort()[len(whole) // 2]]), dims)


def fan_lines(choice: FanChoice, segments: TestSegments, state: Tensor) -> FanLines:
    """The imagined lines of one order, from its forecasts `state` [B,M,H,S], beginning at the true state."""
    begin = segments.context.state[choice.row, -1, choice.dims]
    imagined = state[choice.row][:, :, choice.dims]
    lines = torch.cat([begin.expand(len(imagined), 1, -1), imagined], dim=1)
    return lines.permute(2, 0, 1).tolist()


def describe_fan(
    choice: FanChoice, segments: TestSegments, orders: dict[str, list[list[list[float]]]]
) -> dict[str, Any]:
    """The record of a fan, from the lines of every order."""
    begin = segments.context.state[choice.row, -1, choice.dims]
    truth = torch.cat([begin[:, None], segments.state[choice.row, :, choice.dims].T], dim=1)
    return {
        "segment": {"episode": int(segments.episode[choice.row]), "start": int(segments.start[choice.row])},
        "dims": choice.dims.tolist(),
        "truth": truth.tolist(),
        "orders": orders,
        "unit": "environment",
    }
