"""Each member's own resampling of the data, without a list of what was drawn.

A bootstrap of n transitions holds each of them about Poisson(1) times, always the same number for the same transition
(PETS, arXiv 1805.12114, section 4; Oza and Russell's online bagging draws the counts one by one). Here the count is a
hash of the transition and the member: nothing to store, and a resumed run or another batch find the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_MOST = 12
"""Counts from here on have a probability below 1e-9."""

_HASH_SEED = 0x5EED
_ODD = 0x1B873593CC9E2D51
_UNIFORM_BITS = 24
"""As many as float32 tells apart."""


class Bootstrap(nn.Module):
    """How often each transition counts for each of E members: Poisson(1), a function of the two alone."""

    column: Tensor
    member: Tensor
    cumulative: Tensor

    def __init__(self, num_members: int, num_columns: int) -> None:
        """For transitions of `num_columns` numbers."""
        super().__init__()
        g = torch.Generator().manual_seed(_HASH_SEED)
        self.register_buffer("column", torch.randint(2**62, (num_columns,), generator=g) | 1, persistent=False)
        self.register_buffer("member", torch.randint(2**62, (num_members, 1), generator=g) | 1, persistent=False)
        mass = [math.exp(-1) / math.factorial(count) for count in range(_MOST)]
        self.register_buffer("cumulative", torch.tensor(mass).cumsum(0), persistent=False)

    def forward(self, transition: Tensor) -> Tensor:
        """Counts [E,B], as `transition`'s type, of float32 transitions [B,L]."""
        bits = transition.contiguous().view(torch.int32).long()
        key = (bits * self.column).sum(dim=1)  # int64 products wrap around, on every device alike
        key = (key ^ (key >> 31)) * self.member
        key = (key ^ (key >> 29)) * _ODD
        key = key ^ (key >> 32)
        uniform = (key & (2**_UNIFORM_BITS - 1)).float() / 2**_UNIFORM_BITS
        return torch.searchsorted(self.cumulative, uniform, right=True).to(transition.dtype)
