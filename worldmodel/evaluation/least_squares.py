"""Ridge regression over data that comes in pieces: only sums of products are kept, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


class LeastSquares:
    """Weights W [P,D] that minimise mean |y - x W|^2 + ridge |W|^2; the last feature is the intercept, unpenalised."""

    def __init__(self, num_features: int, num_targets: int) -> None:
        """Start without data: P features, the last of which is always 1, and D targets."""
        self._gram = torch.zeros(num_features, num_features, dtype=torch.float64)
        self._moment = torch.zeros(num_features, num_targets, dtype=torch.float64)
        self._count = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Absorb rows `x` [B,P] and `y` [B,D]."""
        x, y = x.double(), y.double()
        self._gram += x.T @ x
        self._moment += x.T @ y
        self._count += x.shape[0]

    def solve(self, ridge: float) -> Tensor:
        """W [P,D], float64.

        Raises:
            ValueError: unless `ridge` is above 0, or when there is no data.
        """
        if not ridge > 0:
            raise ValueError(f"ridge = {ridge}: expected a number above 0")
        if self._count == 0:
            raise ValueError("nothing to regress on: add rows first")
        penalty = torch.full((self._gram.shape[0],), ridge, dtype=torch.float64)
        penalty[-1] = 0.0
        return torch.linalg.solve(self._gram / self._count + penalty.diag(), self._moment / self._count)
