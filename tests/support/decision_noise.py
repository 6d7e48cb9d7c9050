"""The noise that an exported policy takes, drawn as a `PolicyAgent` draws it, so that both decide alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagination.execution import NoiseSizes


def decision_noise(
    sizes: NoiseSizes, num_samples: int, num_agents: int, batch: int, generator: torch.Generator
) -> Tensor:
    """One step's noise [B,`sizes.total`]: inference first, draws outermost, in the order of the agent's own shapes."""
    rows = (num_samples, batch, num_agents)
    parts = [torch.zeros(batch, 0)]
    for size in (sizes.inference, sizes.action):
        if size:
            drawn = torch.randn(math.prod(rows), size // (num_samples * num_agents), generator=generator)
            parts.append(drawn.unflatten(0, rows).movedim(1, 0).flatten(1))
    return torch.cat(parts, dim=1)
