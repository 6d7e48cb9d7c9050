"""E networks of one shape and different weights, evaluated together as batched matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Members(nn.Module):
    """E MLPs with SiLU ("swish") between the layers: [E,B,in] -> [E,B,out].

    Each layer of each member is an `nn.Linear` of its own, so that whatever treats linear layers (weight decay, for
    instance) treats these; `forward` stacks them, which costs far less than E small products one after another.
    Weights are drawn as in PETS (arXiv 1805.12114, its code): a normal law of standard deviation 1 / (2 sqrt(in)), cut
    at two of these; biases are zero.
    """

    def __init__(self, num_members: int, sizes: Sequence[int]) -> None:
        """E = `num_members`; `sizes`: input, hidden layers, output."""
        super().__init__()
        self.num_members = num_members
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(size_in, size_out) for _ in range(num_members))
            for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                std = 1 / (2 * math.sqrt(layer.in_features))
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Every member's output for its own input, or for one that all share, [B,in]."""
        h = x.expand(self.num_members, *x.shape[-2:])
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            linear = [cast("nn.Linear", member) for member in cast("nn.ModuleList", layer)]
            weight = torch.stack([member.weight for member in linear]).transpose(1, 2)
            bias = torch.stack([member.bias for member in linear])[:, None]
            h = torch.baddbmm(bias, h, weight)
            h = functional.silu(h) if i < last else h
        return h
