"""The U-Net over time on rows [B, L*C], without gradients: the twin of `dima.temporal_unet.TemporalUnet`.

Every block makes its own scales and shifts just before it uses them. One product for all blocks would do the same
arithmetic, but at 600 rows its 13 MB leave a CPU's cache: laying the bias into them took 16 ms a call, of 48 in all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.fast.convolution import PackedConv, packed
from dima.temporal_unet import GROUP_EPS, ResBlock, TemporalUnet, num_groups
from worldmodel.short_convolution import ShortConv


def modulated(x: Tensor, length: int, scale: Tensor, shift: Tensor) -> Tensor:
    """Group norm of x [B, L*C], then SiLU of x * scale + shift with scale and shift [B,C] (or [1,C]): [B, L*C]."""
    channels = scale.shape[1]
    # To torch an image of L rows with its channels innermost, for which it has a fast kernel.
    image = x.view(x.shape[0], length, 1, channels).permute(0, 3, 1, 2)
    normal = functional.group_norm(image, num_groups(channels), eps=GROUP_EPS)
    # Still so on a CPU; a GPU's kernel turns it around, and this turns it back.
    rows = normal.permute(0, 2, 3, 1).contiguous().view(x.shape[0], length, channels)
    rows = torch.addcmul(shift[:, None], rows, scale[:, None], out=rows)
    return functional.silu(rows, inplace=True).view(x.shape)


class _PackedBlock:
    """A `ResBlock` on rows, with its share of the modulation: a product of the condition's last hidden layer."""

    def __init__(self, block: ResBlock, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        """`weight` [P,D] and `bias` [P] give this block's scales and shifts."""
        self.length = block.conv1.in_length
        self.splits = [size // 2 for size in block.modulation_sizes for _ in range(2)]
        # The network computes x * (1 + scale) + shift: the 1 joins the bias.
        one = torch.cat([torch.full((n,), float(i % 2 == 0)) for i, n in enumerate(self.splits)])
        self.modulation_bias = (bias + one.to(bias)).to(dtype)
        self.modulation = packed(weight.t(), dtype)
        self.conv1, self.conv2 = PackedConv(block.conv1, dtype), PackedConv(block.conv2, dtype)
        # conv2's bias, and with a 1x1 convolution beside it that one's too: both are added once to every position.
        bias = cast(Tensor, block.conv2.conv.bias)
        self.skip: Tensor | None = None
        if block.skip is not None:
            self.skip = packed(block.skip.weight.t(), dtype)
            bias = bias + block.skip.bias
        self.bias = bias.to(dtype).clone()
        self.tiled_bias = self.bias.repeat(self.length)

    def __call__(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[B, L*C_in] -> [B, L*C_out], modulated as `hidden` [B,D] says."""
        product = torch.addmm(self.modulation_bias, hidden, self.modulation)
        scale1, shift1, scale2, shift2 = product.split(self.splits, dim=1)
        h = self.conv1(modulated(x, self.length, scale1, shift1))
        h = modulated(h, self.length, scale2, shift2)
        if self.skip is None:
            return self.conv2.add_to(x + self.tiled_bias, h)
        by_position = x.view(x.shape[0] * self.length, -1)
        total = torch.addmm(self.bias, by_position, self.skip).view(x.shape[0], -1)
        return self.conv2.add_to(total, h)


class PackedUnet:
    """A `TemporalUnet` on rows; it keeps no reference to the network that it was made from."""

    def __init__(self, unet: TemporalUnet, condition: nn.Linear, dtype: torch.dtype) -> None:
        """Copy the weights of `unet` as they are now; `condition` is the layer that made its condition vector.

        No activation stands between that layer and the modulation, so both are merged into one product.
        """
        modulation = unet.modulation
        blocks = [block for block in unet.modules() if isinstance(block, ResBlock)]
        sizes = [sum(block.modulation_sizes) for block in blocks]
        weights = iter((modulation.weight @ condition.weight).split(sizes))
        biases = iter((modulation.weight @ condition.bias + modulation.bias).split(sizes))

        def pack(stages: Iterable[Any]) -> list[list[_PackedBlock]]:
            return [[_PackedBlock(block, next(weights), next(biases), dtype) for block in stage] for stage in stages]

        def convs(layers: nn.ModuleList) -> list[PackedConv]:
            return [PackedConv(cast(ShortConv, layer), dtype) for layer in layers]

        self.down, (self.middle,), self.up = pack(unet.down), pack([unet.middle]), pack(unet.up)
        self.downsample, self.upsample = convs(unet.downsample), convs(unet.upsample)

    def __call__(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[B, L*C] -> [B, L*C], modulated as `hidden` [B,D] says."""
        skips: list[list[Tensor]] = []
        for level, blocks in enumerate(self.down):
            if level > 0:
                x = self.downsample[level - 1](x)
            outputs = [x]
            for block in blocks:
                x = block(x, hidden)
                outputs.append(x)
            skips.append(outputs)
        for block in self.middle:
            x = block(x, hidden)
        for stage, blocks in enumerate(self.up):
            if stage > 0:
                x = self.upsample[stage - 1](x)
            outputs = skips.pop()
            for block in blocks:
                x = block(_beside(x, outputs.pop(), block.length), hidden)
        return x


def _beside(x: Tensor, skip: Tensor, length: int) -> Tensor:
    """The channels of two rows next to each other at every position."""
    both = [part.view(part.shape[0], length, -1) for part in (x, skip)]
    return torch.cat(both, dim=2).flatten(1)
