"""Running mean and variance of real data, saved with the model that uses them.

Every model shares this one way of standardising; which rows are absorbed, and when, is the model's decision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.types import Trajectory

CONSTANT_STD = 1e-6
"""A dimension that varies less than this is constant: only rounding noise would be magnified."""
STD_FLOOR = 0.01
"""Smallest standard deviation that states are divided by where no model says another: the world models' default."""
CHANGE_FLOOR = 0.01
"""Floor of the standard deviations of a state's changes, relative to that of the states: from one step to the next a
state changes far less than it varies. On Humanoid a quarter of the live dimensions change by less than the states'
floor."""


class RunningNormalizer(nn.Module):
    """Standardises the last axis with the mean and population variance of all rows absorbed so far.

    Until the first update it is the identity. A constant dimension (std below `CONSTANT_STD`) normalises to exactly 0
    and denormalises to its mean. Statistics accumulate in float64 and are applied in float32.
    """

    count: Tensor
    mean: Tensor
    var: Tensor
    shift: Tensor
    scale: Tensor
    inverse_scale: Tensor

    def __init__(self, dim: int, *, std_floor: float, freeze_after: int | None = None) -> None:
        """Start without data.

        Args:
            dim: D, size of the last axis.
            std_floor: smallest std to divide by (for dimensions that are not constant), so that rare live dimensions,
                contact forces for instance, do not explode.
            freeze_after: once this many rows are absorbed further updates change nothing; None never freezes.
        """
        super().__init__()
        self.std_floor = std_floor
        self.freeze_after = freeze_after
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("var", torch.ones(dim, dtype=torch.float64))
        # What is applied, derived from the above at each update so that normalising costs two operations.
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("inverse_scale", torch.ones(dim))

    @property
    def frozen(self) -> bool:
        """True once `freeze_after` rows have been absorbed. Reads the count from the device."""
        return self.freeze_after is not None and self.count.item() >= self.freeze_after

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Absorb `rows` [*,D] into the statistics, unless they are frozen. Mutates the buffers.

        Merges counts, means and variances exactly (Chan, Golub and LeVeque 1979), so that any split of the data into
        updates gives the same result up to float64 rounding.

        Raises:
            ValueError: when the last axis is not D.
            FloatingPointError: when a value is not finite.
        """
        if rows.shape[-1] != self.mean.shape[0]:
            raise ValueError(f"rows have shape {list(rows.shape)}, expected a last axis of {self.mean.shape[0]}")
        if rows.numel() == 0 or self.frozen:
            return
        new = rows.reshape(-1, rows.shape[-1]).to(self.mean)
        if not bool(torch.isfinite(new).all()):
            raise FloatingPointError("RunningNormalizer.update: rows hold a NaN or an infinity")
        new_var, new_mean = torch.var_mean(new, dim=0, correction=0)
        total = self.count + new.shape[0]
        share = new.shape[0] / total
        delta = new_mean - self.mean
        # Before the first update count is 0 and share is 1: what the buffers held drops out.
        self.var.copy_((1 - share) * self.var + share * new_var + share * (1 - share) * delta.square())
        self.mean.add_(share * delta)
        self.count.copy_(total)
        self._refresh()

    def normalize(self, x: Tensor) -> Tensor:
        """`x` [*,D] in real units -> mean 0 and std 1."""
        return (x - self.shift) * self.scale

    def denormalize(self, z: Tensor) -> Tensor:
        """`z` [*,D] with mean 0 and std 1 -> real units."""
        return z * self.inverse_scale + self.shift

    def _refresh(self) -> None:
        std = self.var.sqrt()
        constant = std < CONSTANT_STD
        std = std.clamp(min=self.std_floor)
        self.shift.copy_(self.mean)
        self.scale.copy_((1 / std).masked_fill(constant, 0.0))
        self.inverse_scale.copy_(std.masked_fill(constant, 0.0))


def absorb(
    trajectory: Trajectory,
    *,
    state: RunningNormalizer | None = None,
    change: RunningNormalizer | None = None,
    obs: RunningNormalizer | None = None,
    reward: RunningNormalizer | None = None,
) -> None:
    """Absorb a trajectory into those statistics that are given. Mutates their buffers.

    However an episode is cut into stretches, each of its states and observations counts once.

    Args:
        trajectory: real data, on any device.
        state: of states [S].
        change: of how states change from one step to the next [S].
        obs: of joint observations [N*O].
        reward: of rewards [1].
    """
    first = 0 if trajectory.is_start else 1  # a stretch that goes on repeats the last state of the one before
    rows = (
        (state, trajectory.state[first:]),
        (change, trajectory.state.diff(dim=0)),
        (obs, trajectory.obs[first:].flatten(1)),
        (reward, trajectory.reward[:, None]),
    )
    for norm, new in rows:
        if norm is not None:
            norm.update(new.to(norm.mean.device))
