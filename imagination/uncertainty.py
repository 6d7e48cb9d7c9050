"""Imagination that knows where its model knows nothing: rollouts are cut there, or their reward is lowered.

Two signals: what a model says itself (`Prediction.uncertainty`: an ensemble's disagreement), and, for a model that
draws its steps, the spread of several draws of the same one. Neither waits for the device.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from worldmodel.config import Config, ConfigError
from worldmodel.normalize import CONSTANT_STD, STD_FLOOR
from worldmodel.protocol import WorldModel, reports_uncertainty
from worldmodel.types import Prediction, Segment


@dataclasses.dataclass(frozen=True)
class UncertaintyConfig(Config):
    """What imagination does where the model is unsure."""

    action: Literal["none", "truncate", "penalise"]
    """truncate: a rollout ends, at the critic's value, before its first step that is too uncertain (after MOReL, arXiv
    2005.05951, and M2AC, arXiv 2010.04893). penalise: the reward is lowered (MOPO, arXiv 2005.13239)."""
    signal: Literal["model", "spread"]
    """model: `Prediction.uncertainty`. spread: the standard deviation of `num_draws` draws of the next state, in
    standard deviations of the states that rollouts start from; it holds the world's own randomness too. It is 0 for a
    model that draws nothing, and holds no disagreement of an ensemble whose draws all follow a rollout's one member."""
    num_draws: int
    """spread: draws of each imagined step; the first goes on, so the cost is that many times."""
    threshold: float
    """truncate: too uncertain is what exceeds so many times the median of all rollouts' first steps (of those
    in any doubt), which start from real states: a number without a unit, the same for every model and task."""
    weight: float
    """penalise: the reward becomes reward - weight * uncertainty, in the signal's unit."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.num_draws >= 2, "num_draws", "at least 2")
        self.require(self.threshold > 0, "threshold", "a number above 0")
        self.require(self.weight >= 0, "weight", "at least 0")

    @property
    def is_on(self) -> bool:
        """Whether anything has to be measured."""
        return self.action != "none"

    def require_fit(self, model: WorldModel[Any]) -> None:
        """Refuse a signal that `model` does not give.

        Raises:
            ConfigError: saying which other one there is.
        """
        if self.is_on and self.signal == "model" and not reports_uncertainty(model):
            raise ConfigError(
                f"policy.uncertainty.signal = 'model': {type(model).__name__} does not report how unsure it is; use"
                " policy.uncertainty.signal=spread"
            )


class UncertaintyGauge:
    """Measures the steps of one batch of rollouts."""

    def __init__(self, config: UncertaintyConfig, context: Segment) -> None:
        """`context`: the real steps that the rollouts start from."""
        self._config = config
        self._units = (_inverse_std(context.state[:, -1]), _inverse_std(context.obs[:, -1].flatten(1)))

    def measure(
        self, model: WorldModel[Any], before: Any, action: Tensor, prediction: Prediction, generator: torch.Generator
    ) -> Tensor:
        """The uncertainty [B] of `prediction`, which `model` made from the carry `before` under `action` [B,N,A]."""
        if self._config.signal == "model":
            assert prediction.uncertainty is not None, "see UncertaintyConfig.require_fit"
            return prediction.uncertainty
        draws = [prediction]
        for _ in range(self._config.num_draws - 1):
            draws.append(model.step(before, action, generator=generator)[1])
        return self._spread(draws)

    def _spread(self, draws: list[Prediction]) -> Tensor:
        """Root mean square over entries of the draws' standard deviation; of observations where there is no state."""
        has_state = draws[0].state is not None
        values = torch.stack([draw.state if draw.state is not None else draw.obs.flatten(1) for draw in draws])
        unit = self._units[0 if has_state else 1]
        variance = (values * unit).var(dim=0, correction=1)  # [B, entries]
        return (variance.sum(dim=1) / (unit > 0).sum().clamp(min=1)).sqrt()


def known_steps(uncertainty: Tensor, threshold: float) -> Tensor:
    """Which steps [B,H] come before a rollout's first one whose `uncertainty` [B,H] is too large; bool.

    Too large: not finite, or above `threshold` times the median over the rollouts' first steps that are in any doubt; a
    first step without (discrete latents in a deterministic world) says nothing of what is much. With none in doubt
    everything finite is known, and with none finite everything: that model is broken, which is not for a cut to hide.
    """
    first, finite = uncertainty[:, 0], uncertainty.isfinite()
    in_doubt = finite[:, 0] & (first > 0)
    bound = (threshold * torch.where(in_doubt, first, torch.nan).nanmedian()).nan_to_num(nan=torch.inf)
    known = (finite & (uncertainty <= bound)).cumprod(dim=1).bool()
    return known | ~finite[:, 0].any()


def _inverse_std(values: Tensor) -> Tensor:
    """1 / standard deviation over the rows of each entry of [B,D], floored as models floor it; 0 for a constant."""
    std = values.std(dim=0, correction=0)
    return torch.where(std > CONSTANT_STD, 1 / std.clamp(min=STD_FLOOR), 0.0)
