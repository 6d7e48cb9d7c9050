"""How a policy that was trained on states acts on inferred ones: how many draws, and what becomes of their actions."""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor

from imagination.policy import Policy
from worldmodel.protocol import StateInference

Combine = Literal["draw", "mean", "votes"]

_TIE = 1e-5
"""Sums of distances that differ by less, relative to the smallest, are taken for equal: rounding in float32."""


@dataclasses.dataclass(frozen=True)
class Belief:
    """A way of inferring states, and how its draws are used.

    `draw`: one draw an agent and step is acted on (the paper's). `mean`: the mean of the actions for M draws.
    `votes`: the action, among those for M draws, that lies nearest to the others (the first of several such); unlike a
    mean it is always an action for some plausible state.
    """

    inference: StateInference
    combine: Combine = "draw"
    num_samples: int = 1
    """M."""

    def __post_init__(self) -> None:
        """Refuse several draws where one is used.

        Raises:
            ValueError: naming the number and what it may be.
        """
        least = 1 if self.combine == "draw" else 2
        if self.num_samples < least or (self.combine == "draw" and self.num_samples != 1):
            expected = "1 with combine=draw" if self.combine == "draw" else "at least 2"
            raise ValueError(f"samples = {self.num_samples}: expected {expected}; combine = {self.combine!r}")

    def choose(self, actions: Tensor) -> Tensor:
        """The action [B,N,A] in [-1, 1] from those for M draws [M,B,N,A], drawn by a policy and not yet clamped."""
        # Beyond the bounds actions differ for the policy alone: to the environment they are one and the same.
        actions = Policy.to_env(actions)
        if self.combine == "mean":
            return actions.mean(dim=0)
        if self.combine == "votes":
            by_agent = actions.movedim(0, -2)  # [B,N,M,A]
            # Not cdist: with more than 25 samples it takes differences of squares, and near ones change places.
            distance = (by_agent[..., :, None, :] - by_agent[..., None, :, :]).norm(dim=-1)  # [B,N,M,M]
            total = distance.sum(dim=-1)  # [B,N,M]
            # The two in the middle of an even number of one-dimensional actions tie: the first wins, not rounding.
            is_nearest = total <= total.amin(dim=-1, keepdim=True) * (1 + _TIE)
            winner = is_nearest.int().argmax(dim=-1)  # [B,N]
            return actions.gather(0, winner[None, :, :, None].expand(1, *actions.shape[1:]))[0]
        return actions[0]
