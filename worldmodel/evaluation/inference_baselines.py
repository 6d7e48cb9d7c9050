"""Inferencers that any learned one should beat: the mean state, and linear regression with Gaussian residuals.

They keep `StateInference`, so that they are measured by the very same code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodel.evaluation.least_squares import LeastSquares
from worldmodel.evaluation.moments import all_moments
from worldmodel.protocol import Auxiliary
from worldmodel.types import Trajectory

RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties, in standardised units, that cross-validation chooses from."""

_FOLDS = 5
_MOST_ROWS = 50_000
"""Moments that a regression is fitted on at most; far more than its numbers of weights here."""

_CONSTANT = 1e-6
"""A standard deviation below which an entry does not vary."""


class MeanState:
    """Infers the mean state of the training data, whatever is observed."""

    auxiliary: Auxiliary = "own"
    history_steps = 0

    def __init__(self, trajectories: Sequence[Trajectory]) -> None:
        self._mean = torch.cat([trajectory.state for trajectory in trajectories]).double().mean(dim=0)

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """The mean [M,B,S], M times the same."""
        return self._mean.float().expand(num_samples, history.shape[0], -1)


@dataclasses.dataclass(frozen=True)
class GaussianRegression:
    """y given x is N(x W, C): the strongest thing to say with straight lines."""

    x_mean: Tensor
    x_std: Tensor
    y_mean: Tensor
    y_std: Tensor
    weight: Tensor
    """[P+1,D] in standardised units, the intercept last."""
    root: Tensor
    """[D,D] square root of the covariance of the residuals, in standardised units."""
    ridge: float
    """The penalty that cross-validation chose."""

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, fold: Tensor) -> GaussianRegression:
        """Ridge regression of `y` [B,D] on `x` [B,P]; penalty and residuals from cross-validation.

        Residuals of rows that a regression was not fitted on: their covariance is honest however many weights there
        are.

        Args:
            x: [B,P] what is known.
            y: [B,D] what is asked.
            fold: [B] int64; rows with the same number, as those of one episode, are left out together.

        Raises:
            ValueError: without rows.
        """
        x, y = x.double(), y.double()
        x_mean, x_std = x.mean(dim=0), _std(x)
        y_mean, y_std = y.mean(dim=0), _std(y)
        rows = torch.cat([(x - x_mean) / x_std, torch.ones_like(x[:, :1])], dim=1)
        target = (y - y_mean) / y_std
        residuals = _left_out_residuals(rows, target, fold)
        ridge = min(residuals, key=lambda each: float(residuals[each].square().sum()))
        covariance = residuals[ridge].T @ residuals[ridge] / len(rows)
        values, vectors = torch.linalg.eigh(covariance)
        weight = _squares(rows, target).solve(ridge)
        return cls(x_mean, x_std, y_mean, y_std, weight, vectors * values.clamp(min=0).sqrt(), ridge)

    def sample(self, x: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw [M,B,D] for `x` [B,P]; `generator` on the CPU."""
        rows = torch.cat([(x.double() - self.x_mean) / self.x_std, torch.ones_like(x[:, :1]).double()], dim=1)
        shape = (num_samples, x.shape[0], self.root.shape[0])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) @ self.root.T
        return ((rows @ self.weight + noise) * self.y_std + self.y_mean).float()


class LinearInference:
    """A Gaussian regression of the state on what is observed: one for each agent (`own`), or one (`joint`)."""

    def __init__(self, trajectories: Sequence[Trajectory], auxiliary: Auxiliary, history_steps: int) -> None:
        """Fit to whole episodes, at most 50 000 of their moments."""
        self.auxiliary: Auxiliary = auxiliary
        self.history_steps = history_steps
        moments = all_moments(trajectories, _MOST_ROWS)
        history, fold = moments.history(history_steps), moments.episode
        if len(trajectories) < 2:  # stretches of the only episode in the place of episodes
            fold = torch.arange(moments.num_moments) * _FOLDS // moments.num_moments
        agents = range(history.shape[2]) if auxiliary == "own" else (0,)
        self.regressions = [GaussianRegression.fit(self._seen(history, i), moments.state, fold) for i in agents]

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """As `StateInference.infer`; `generator` on the CPU.

        Raises:
            ValueError: when `agent` is None and each has a regression of its own.
        """
        if self.auxiliary == "joint":
            return self.regressions[0].sample(self._seen(history, 0), num_samples, generator)
        if agent is None:
            raise ValueError("agent is None: whoever infers from its own observations must be named, [B] from 0")
        drawn = history.new_empty(num_samples, len(agent), self.regressions[0].root.shape[0])
        for number, regression in enumerate(self.regressions):
            own = agent == number
            drawn[:, own] = regression.sample(self._seen(history[own], number), num_samples, generator)
        return drawn

    def _seen(self, history: Tensor, agent: int) -> Tensor:
        return history.flatten(1) if self.auxiliary == "joint" else history[:, :, agent].flatten(1)


def _std(values: Tensor) -> Tensor:
    std = values.std(dim=0, correction=0)
    return torch.where(std > _CONSTANT, std, 1.0)


def _left_out_residuals(rows: Tensor, target: Tensor, fold: Tensor) -> dict[float, Tensor]:
    """By penalty, target less prediction [B,D], each row predicted by a regression on the other folds."""
    residuals = {ridge: torch.zeros_like(target) for ridge in RIDGES}
    index = torch.unique(fold, return_inverse=True)[1] % _FOLDS
    for number in index.unique().tolist():
        out = index == number
        squares = _squares(rows[~out], target[~out])
        for ridge, residual in residuals.items():
            residual[out] = target[out] - rows[out] @ squares.solve(ridge)
    return residuals


def _squares(rows: Tensor, target: Tensor) -> LeastSquares:
    squares = LeastSquares(rows.shape[1], target.shape[1])
    squares.add(rows, target)
    return squares
