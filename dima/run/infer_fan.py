"""One held-out stretch, step by step: the true state and the quantiles of the states that are inferred along it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dima.run.infer_inputs import InferTask, Opened
from worldmodel.evaluation.inference_metrics import StateScores, quantile
from worldmodel.evaluation.moments import Moments
from worldmodel.history import infer_for_agents

STEPS = 60
"""Length of the stretch; a shorter episode is shown whole."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_AGENT = 0
"""Whose inferences are shown."""


@dataclasses.dataclass(frozen=True)
class FanChoice:
    """The stretch, and the dimensions that are shown."""

    moments: Moments
    dims: dict[str, int]
    """By `worst`, `median` and `best`: a dimension of the state."""


def choose_fan(task: InferTask, scores: Mapping[str, StateScores]) -> FanChoice:
    """A stretch of one of the longest held-out episodes, drawn from the seed.

    Dimensions are ranked by the error of one draw, averaged over runs; with two that vary there is no `median`, with
    one only a `worst`.
    """
    episodes, draw = task.moments.trajectories, task.generator("fan")
    longest = max(episode.length for episode in episodes)
    candidates = [number for number, episode in enumerate(episodes) if episode.length == longest]
    number = candidates[int(torch.randint(len(candidates), (), generator=draw))]
    start = int(torch.randint(max(longest - STEPS, 0) + 1, (), generator=draw))
    step = torch.arange(start, min(start + STEPS, longest))
    moments = Moments.at(episodes, torch.full_like(step, number), step)
    live = torch.nonzero(task.units.live)[:, 0].tolist()
    error = torch.stack([each.error_draw.mean(dim=(0, 1)) for each in scores.values()]).mean(dim=0)
    order = error.argsort(descending=True, stable=True).tolist()
    places = {"worst": 0, "median": len(live) // 2, "best": len(live) - 1}
    if len(live) < 3:
        places = dict(list({"worst": 0, "best": 1}.items())[: len(live)])
    return FanChoice(moments, {name: live[order[place]] for name, place in places.items()})


def fan_quantiles(opened: Opened, choice: FanChoice, task: InferTask) -> list[list[list[float]]]:
    """[dimensions][steps][quantiles] of what the first agent infers, in the environment's units."""
    inference, device = opened.saved.inference, task.device
    history = choice.moments.history(inference.history_steps).to(device)
    drawn = infer_for_agents(
        inference,
        history,
        choice.moments.state.to(device),
        num_samples=task.num_samples,
        generator=task.generator("fan/noise", device),
    )
    own: Tensor = drawn.cpu()[:, :, _AGENT, list(choice.dims.values())].double()  # [M,T,D]
    ordered = own.transpose(0, 1).sort(dim=1).values  # [T,M,D]
    return torch.stack([quantile(ordered, share) for share in QUANTILES], dim=-1).transpose(0, 1).tolist()


def describe_fan(choice: FanChoice, quantiles: dict[str, list[list[list[float]]]]) -> dict[str, Any]:
    """The record of the stretch, from the quantiles of every run."""
    moments = choice.moments
    return {
        "episode": int(moments.episode[0]),
        "start": int(moments.step[0]),
        "agent": _AGENT + 1,
        "dims": choice.dims,
        "quantiles": list(QUANTILES),
        "truth": moments.state[:, list(choice.dims.values())].T.tolist(),
        "runs": quantiles,
        "unit": "environment",
    }
