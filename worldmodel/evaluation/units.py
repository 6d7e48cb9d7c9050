"""What an error is measured in: the standard deviation of each dimension in the data.

Dimensions that do not vary (padding, agent ids, fixed sensors) say nothing about a model and are left out of averages.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from worldmodel.normalize import CONSTANT_STD
from worldmodel.shapes import check_shape


@dataclasses.dataclass(frozen=True)
class Units:
    """The scale of each of D dimensions, and which of them count."""

    std: Tensor
    """[D] float64: population standard deviation in the data, in the environment's own units."""
    live: Tensor
    """[D] bool: varies by more than `CONSTANT_STD` and is real; only these dimensions are averaged over."""

    @classmethod
    def of(cls, rows: Tensor, real: Tensor | None = None) -> Units:
        """Measure the scale of a dataset.

        Args:
            rows: [*,D] values, one row a step; all of them count.
            real: [D] bool, False for padding and agent ids; None: all are real.

        Raises:
            ValueError: without any row, or when `real` has another size.
            FloatingPointError: when a value is not finite.
        """
        flat = rows.reshape(-1, rows.shape[-1]).double()
        if flat.shape[0] == 0:
            raise ValueError(f"Units.of got rows of shape {list(rows.shape)}: expected at least one row")
        if not bool(torch.isfinite(flat).all()):
            dim = int(torch.nonzero(~torch.isfinite(flat))[0, 1])
            raise FloatingPointError(f"Units.of: dimension {dim} of the data holds a value that is not finite")
        std = flat.std(dim=0, correction=0)
        live = std > CONSTANT_STD
        if real is not None:
            check_shape("real", real, "D", D=flat.shape[1])
            live = live & real.to(live.device)
        return cls(std=std, live=live)

    @property
    def dim(self) -> int:
        """D: number of dimensions, the constant ones included."""
        return self.std.shape[0]

    @property
    def num_live(self) -> int:
        """Number of dimensions that count."""
        return int(self.live.sum())

    def live_part(self, values: Tensor) -> Tensor:
        """Keep the dimensions that count, in the environment's own units: [*,D] to [*,L].

        Raises:
            ValueError: when no dimension varies, so that no error can be put in relation to anything.
        """
        if self.num_live == 0:
            raise ValueError(f"none of the {self.dim} dimensions varies in the data: there is no scale to measure by")
        return values[..., self.live.to(values.device)]

    def normalize(self, values: Tensor) -> Tensor:
        """Keep the dimensions that count and express them in standard deviations: [*,D] to [*,L], float64."""
        return self.live_part(values).double() / self.std[self.live].to(values.device)
