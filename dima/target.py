"""What the noise is laid on: the next state itself, as in the paper, or how the state changes.

Both in units of sigma_data = 0.5 standard deviations. Most of a next state is known from the present one; noised as a
change, every dimension's uncertain part has the same scale, so noise levels mean the same for all of them.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from worldmodel.normalize import RunningNormalizer

Target = Literal["state", "change"]


class StateTarget:
    """Turns a next state into what is denoised, and back; all arguments in units of sigma_data."""

    def __init__(
        self, kind: Target, sigma_data: float, state_norm: RunningNormalizer, change_norm: RunningNormalizer
    ) -> None:
        """Read the statistics of states and of their changes [S], which somebody else owns and updates."""
        self.kind = kind
        self.sigma_data = sigma_data
        self._state_norm = state_norm
        self._change_norm = change_norm

    def encode(self, state: Tensor, next_state: Tensor) -> Tensor:
        """What is denoised [B,S] for the step from `state` to `next_state`."""
        if self.kind == "state":
            return next_state
        change = (next_state - state) / self.sigma_data * self._state_norm.inverse_scale
        return self.sigma_data * self._change_norm.normalize(change)

    def decode(self, state: Tensor, denoised: Tensor) -> Tensor:
        """The next state [B,S], from `state` and what was denoised."""
        if self.kind == "state":
            return denoised
        change = self._change_norm.denormalize(denoised / self.sigma_data)
        return state + self.sigma_data * change * self._state_norm.scale
