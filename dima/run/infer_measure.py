"""Asking an inferencer for the states of every moment and agent, and scoring what it answers.

Learned inferencers, baselines and the exact law go through the same function.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from dima.run.infer_inputs import InferTask
from worldmodel.evaluation.inference_metrics import StateScores, score_draws
from worldmodel.evaluation.mode_metrics import ModeScores, score_modes
from worldmodel.history import infer_for_agents
from worldmodel.inference.learned import LearnedInference
from worldmodel.protocol import StateInference

_ROWS = 8192
"""States that a network draws at once: many, but their activations fit the memory of a laptop."""

LATENT_REPEATS = 16
"""Draws of the latent, and of the noise level where there is one, that a moment's latent report is averaged over."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one inferencer answered at the moments of a task, scored."""

    scores: StateScores
    modes: ModeScores | None
    """Where the law of the state is known."""
    first_draw: Tensor
    """[B,N,S] one inferred state for each moment and agent."""


def measure(inference: StateInference, task: InferTask, device: torch.device) -> Measured:
    """Draw M states for every moment and agent and judge them.

    Raises:
        FloatingPointError: naming the moment, when a state is not finite.
    """
    history, state = task.moments.history(inference.history_steps), task.moments.state
    generator, ties = task.generator("noise", device), task.generator("ties")
    rows = max(1, _ROWS // (task.num_samples * task.spec.num_agents))
    scores, modes, first = [], [], []
    for begin in range(0, task.moments.num_moments, rows):
        part, true = history[begin : begin + rows], state[begin : begin + rows]
        drawn = infer_for_agents(
            inference, part.to(device), true.to(device), num_samples=task.num_samples, generator=generator
        ).cpu()  # [M,B,N,S]
        scores.append(score_draws(drawn, true, task.units, ties))
        if task.law is not None:
            modes.append(score_modes(drawn, task.law.mixture(part).mean))
        first.append(drawn[0])
    joined = ModeScores.join(modes) if modes else None
    return Measured(StateScores.join(scores), joined, torch.cat(first))


@torch.no_grad()
def measure_latent(inference: StateInference, task: InferTask, device: torch.device) -> dict[str, Tensor]:
    """By moment [B], averaged over agents: KL in nats, and errors with z from the posterior and from the prior.

    Empty for an inferencer that knows no latent. The errors are those of the law's own training.
    """
    report = getattr(inference.law, "latent_report", None) if isinstance(inference, LearnedInference) else None
    if report is None or not isinstance(inference, LearnedInference):
        return {}
    history, state = task.moments.history(inference.history_steps), task.moments.state
    num_agents, generator = task.spec.num_agents, task.generator("latent", device)
    rows = max(1, _ROWS // num_agents)
    parts: list[dict[str, Tensor]] = []
    for begin in range(0, task.moments.num_moments, rows):
        part, true = history[begin : begin + rows].to(device), state[begin : begin + rows].to(device)
        agent = torch.arange(num_agents, device=device).repeat(len(part))
        repeated = part.repeat_interleave(num_agents, dim=0), true.repeat_interleave(num_agents, dim=0)
        x, s = inference.standardized(*repeated, agent)
        reports = [report(x, s, generator) for _ in range(LATENT_REPEATS)]
        if not reports[0]:
            return {}
        means = {name: torch.stack([report[name] for report in reports]).mean(dim=0) for name in reports[0]}
        parts.append({name: each.unflatten(0, (-1, num_agents)).mean(dim=1).cpu() for name, each in means.items()})
    joined = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}
    for name, values in joined.items():
        if not math.isfinite(float(values.sum())):
            raise FloatingPointError(f"{name} of the latent is not finite")
    return joined
