"""Moments of real episodes at which states are inferred, and what had been observed until then.

Every inferencer that is compared meets the same moments, however many observations it looks back on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.evaluation.segments import require_whole_episodes
from worldmodel.types import Trajectory


@dataclasses.dataclass(frozen=True)
class Moments:
    """B moments of whole episodes, each one at which a decision was made; on the CPU."""

    episode: Tensor
    """[B] int64: which of the trajectories."""
    step: Tensor
    """[B] int64: steps of its episode before it, from 0."""
    state: Tensor
    """[B,S] the true state, in the environment's units."""
    trajectories: tuple[Trajectory, ...]
    """Where they come from."""

    @classmethod
    def at(cls, trajectories: Sequence[Trajectory], episode: Tensor, step: Tensor) -> Moments:
        """The moments `step` [B] of the trajectories `episode` [B].

        Raises:
            ValueError: when a trajectory is not a whole episode.
        """
        require_whole_episodes(trajectories)
        pairs = list(zip(episode.tolist(), step.tolist(), strict=True))
        state = torch.stack([trajectories[e].state[t] for e, t in pairs])
        return cls(episode, step, state, tuple(trajectories))

    @property
    def num_moments(self) -> int:
        """B."""
        return self.step.shape[0]

    def history(self, history_steps: int) -> Tensor:
        """What was observed, [B,m+1,N,O] with m = `history_steps`, as `StateInference.infer` takes it.

        Before an episode's start its first observation stands.
        """
        back = torch.arange(-history_steps, 1)
        rows = zip(self.episode.tolist(), self.step, strict=True)
        return torch.stack([self.trajectories[e].obs[(t + back).clamp(min=0)] for e, t in rows])


def draw_moments(trajectories: Sequence[Trajectory], num_moments: int, generator: torch.Generator) -> Moments:
    """B = `num_moments` different moments, one out of each of B equal stretches of all episodes laid end to end.

    They are spread over the episodes in proportion to their lengths, and over the steps within each. An episode's last
    state, in which nothing is decided any more, is not among them.

    Raises:
        ValueError: when a trajectory is not a whole episode, or there are fewer moments than asked for.
    """
    if num_moments < 1:
        raise ValueError(f"num_moments = {num_moments}: expected at least 1")
    require_whole_episodes(trajectories)
    length = torch.tensor([trajectory.length for trajectory in trajectories])
    total = int(length.sum())
    if total < num_moments:
        raise ValueError(
            f"states = {num_moments}: in {len(trajectories)} episode(s) there are {total} moments;"
            f" ask for at most {total} states, or collect more"
        )
    edge = torch.arange(num_moments + 1) * total // num_moments
    share = torch.rand(num_moments, generator=generator, dtype=torch.float64)
    drawn = edge[:-1] + (share * (edge[1:] - edge[:-1])).long()
    end = length.cumsum(0)
    episode = torch.searchsorted(end, drawn, right=True)
    return Moments.at(trajectories, episode, drawn - (end - length)[episode])


def all_moments(trajectories: Sequence[Trajectory], at_most: int) -> Moments:
    """Every moment at which a decision was made, or `at_most` of them, evenly spaced.

    Raises:
        ValueError: when a trajectory is not a whole episode.
    """
    require_whole_episodes(trajectories)
    length = torch.tensor([trajectory.length for trajectory in trajectories])
    total = int(length.sum())
    kept = min(total, at_most)
    index = torch.arange(kept) * total // kept
    end = length.cumsum(0)
    episode = torch.searchsorted(end, index, right=True)
    return Moments.at(trajectories, episode, index - (end - length)[episode])
