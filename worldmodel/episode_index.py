"""Which stored transition to draw: a table of episodes on the device, and the age groups they are drawn from.

Knows how many transitions every episode has and where it begins, nothing of what they hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class EpisodeIndex:
    """E episodes ordered by age, oldest first, in G groups of neighbours. All tensors are on one device."""

    stream: Tensor
    """[E] the ring an episode lies in."""
    start: Tensor
    """[E] its first row in that ring."""
    length: Tensor
    """[E] its number of transitions."""
    end: Tensor
    """[E] running total of transitions up to and with each episode."""
    group_end: Tensor
    """[G] running total of the groups' probabilities, float64."""
    group_first: Tensor
    """[G] the first transition of each group, counted over all episodes."""
    group_length: Tensor
    """[G] transitions in each group."""

    @classmethod
    def build(cls, table: Tensor, weights: Sequence[float], device: torch.device) -> Self:
        """Index `table` [E,3] of (stream, start, length) on the CPU.

        Args:
            table: the episodes, oldest first, each with at least one transition.
            weights: probability of each of G equal groups of episodes, oldest first. With fewer episodes than groups
                some are empty; their weight falls to the others.
            device: where to draw.
        """
        stream, start, length = table.unbind(1)
        end = torch.cumsum(length, 0)
        edges = [len(table) * i // len(weights) for i in range(len(weights) + 1)]
        before = torch.cat([end.new_zeros(1), end])[edges]
        filled = before.diff() > 0
        probability = torch.tensor(weights, dtype=torch.float64)[filled]
        return cls(
            stream=stream.to(device),
            start=start.to(device),
            length=length.to(device),
            end=end.to(device),
            group_end=torch.cumsum(probability / probability.sum(), 0).to(device),
            group_first=before[:-1][filled].to(device),
            group_length=before.diff()[filled].to(device),
        )

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """B transitions, uniform within a group drawn by its weight, as (episode [B], step within it [B])."""
        # Float64: a uniform number times a count, rounded down, stays below the count and is uniform to 1e-10.
        u, v = torch.rand(2, batch_size, generator=generator, device=self.end.device, dtype=torch.float64)
        group = torch.searchsorted(self.group_end, u, right=True).clamp(max=len(self.group_end) - 1)
        transition = self.group_first[group] + (v * self.group_length[group]).long()
        episode = torch.searchsorted(self.end, transition, right=True)
        return episode, transition - (self.end - self.length)[episode]
