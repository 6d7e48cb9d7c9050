"""What a world model makes of recorded actions, open loop: it never sees a real state again after the start.

Works with any `WorldModel`; knows nothing of how it imagines.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from worldmodel.evaluation.segments import TestSegments
from worldmodel.protocol import WorldModel
from worldmodel.types import TensorStruct


@dataclasses.dataclass(frozen=True)
class Forecast(TensorStruct):
    """M independent forecasts of each of B segments, in the environment's units.

    Where a real episode has terminated the model goes on, under actions of zero; a segment's `valid` says what counts.
    """

    state: Tensor | None
    """[B,M,H,S] the state after each step; None for a model that predicts no global state."""
    obs: Tensor
    """[B,M,H,N,O] the observations after each step."""
    reward: Tensor
    """[B,M,H] the team's reward of each step."""
    termination: Tensor
    """[B,M,H] the probability, in [0, 1], that the episode terminates with this step."""


@torch.no_grad()
def forecast(
    model: WorldModel[Any],
    segments: TestSegments,
    *,
    num_samples: int,
    generator: torch.Generator,
    batch_rows: int = 4096,
) -> Forecast:
    """Replay the recorded actions of `segments` in `model`, M times each.

    The noise depends on the generator and on `batch_rows` alone: with the same of both, models that draw alike meet
    the same noise, and their differences are paired.

    Args:
        model: used in evaluation mode, and left in the mode it was in; it lives on the generator's device.
        segments: where to start and what was done; their context must be as long as the model's.
        num_samples: M, at least 1.
        generator: source of all noise.
        batch_rows: rollouts imagined side by side; at least the M of one segment are.

    Returns:
        The forecasts, on the device of `segments`.

    Raises:
        ValueError: when M or the context's length does not fit.
        FloatingPointError: naming step, segment, sample and field, when the model predicts a NaN or an infinity.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples = {num_samples}: expected at least 1")
    if segments.context.length != model.context_length:
        raise ValueError(
            f"segments have a context of {segments.context.length} steps, {type(model).__name__} reads"
            f" {model.context_length}: draw them with context_length = {model.context_length}"
        )
    chunk = max(1, batch_rows // num_samples)
    was_training = model.training
    model.train(False)
    try:
        parts = [
            _forecast_chunk(
                model, segments, range(first, min(first + chunk, segments.num_segments)), num_samples, generator
            )
            for first in range(0, segments.num_segments, chunk)
        ]
    finally:
        model.train(was_training)
    return _join(parts, dim=0)


def _forecast_chunk(
    model: WorldModel[Any], segments: TestSegments, chunk: range, num_samples: int, generator: torch.Generator
) -> Forecast:
    """The forecasts of the segments `chunk`: one batch of segments x samples, a segment's samples side by side."""
    home = segments.action.device
    here = segments[chunk.start : chunk.stop].to(generator.device)
    rows = here.map(lambda tensor: tensor.repeat_interleave(num_samples, dim=0))
    state = model.start(rows.context, generator=generator)
    steps: list[Forecast] = []
    for t in range(segments.horizon):
        state, prediction = model.step(state, rows.action[:, t], generator=generator)
        # [segments * M, ...] -> [segments, M, ...], so that a fault is named by segment and sample
        predicted = prediction.map(lambda tensor: tensor.unflatten(0, (-1, num_samples)))
        predicted.require_finite(
            f"{type(model).__name__}, step {t + 1} of {segments.horizon}, at [segment - {chunk.start}, sample, ...]"
        )
        steps.append(
            Forecast(predicted.state, predicted.obs, predicted.reward, termination=1 - predicted.continuation).to(home)
        )
    return _join([step.map(lambda tensor: tensor.unsqueeze(2)) for step in steps], dim=2)


def _join(parts: list[Forecast], dim: int) -> Forecast:
    """All `parts`, one after the other along `dim`."""
    columns = [dict(part.tensors()) for part in parts]
    joined = {name: torch.cat([column[name] for column in columns], dim=dim) for name in columns[0]}
    return dataclasses.replace(parts[0], **joined)
