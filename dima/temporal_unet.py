"""The 1-D U-Net over time: length 4 (three past states and the noisy next one), state dimensions as channels.

DIMA, Appendix G.1 and Table 3; layer layout of the authors' published code (lengths 4 -> 2 -> 1, no attention).
At these lengths a convolution is a small matrix product over (channels x time); it is computed as one.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.short_convolution import ShortConv

GROUP_SIZE = 32
GROUP_EPS = 1e-5


def temporal_conv(
    in_channels: int, out_channels: int, length: int, kind: Literal["same", "down", "up"] = "same"
) -> ShortConv:
    """A convolution over time [B,C_in,L_in] -> [B,C_out,L_out]: a product whatever the length.

    The sampler lays kernels out once for many calls (`folded_convolutions`), so that a product is always cheap there.
    """
    return ShortConv(in_channels, out_channels, length, kind, dense=True)


class ResBlock(nn.Module):
    """Two convolutions with adaptive group normalisation (DIAMOND, arXiv 2405.12399, Appendix A).

    The scales and shifts come from outside, so that one product makes those of the whole network.
    """

    def __init__(self, in_channels: int, out_channels: int, length: int) -> None:
        """Zero the second convolution's weight: at the start the block passes its input on."""
        super().__init__()
        self.modulation_sizes = (2 * in_channels, 2 * out_channels)
        self.conv1 = temporal_conv(in_channels, out_channels, length)
        self.conv2 = temporal_conv(out_channels, out_channels, length)
        nn.init.zeros_(self.conv2.conv.weight)
        self.skip = nn.Linear(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Tensor, modulation1: Tensor, modulation2: Tensor) -> Tensor:
        """[B,C_in,L] -> [B,C_out,L]; the modulations are [B,2*C_in] and [B,2*C_out]."""
        h = self.conv1(functional.silu(_adaptive_group_norm(x, modulation1)))
        h = self.conv2(functional.silu(_adaptive_group_norm(h, modulation2)))
        residual = x if self.skip is None else self.skip(x.transpose(1, 2)).transpose(1, 2)
        return residual + h


class TemporalUnet(nn.Module):
    """U-Net over [B,C,L] with one ResBlock list a level, modulated by a condition vector [B,D]."""

    def __init__(self, channels: tuple[int, ...], depths: tuple[int, ...], length: int, cond_dim: int) -> None:
        """Build levels of `depths[i]` residual blocks with `channels[i]` channels; each level halves the length.

        Raises:
            ValueError: when `length` cannot be halved that often.
        """
        super().__init__()
        halvings = len(channels) - 1
        if len(channels) != len(depths) or length % 2**halvings:
            raise ValueError(
                f"channels {channels} and depths {depths} need {halvings} halvings of the length {length}:"
                " expected as many depths as channels and a length divisible by 2 for each level but the first"
            )
        lengths = [length // 2**level for level in range(len(channels))]
        self.down = nn.ModuleList()
        self.downsample = nn.ModuleList()
        for level, (width, depth) in enumerate(zip(channels, depths, strict=True)):
            before = channels[max(level - 1, 0)]
            if level > 0:
                self.downsample.append(temporal_conv(before, before, lengths[level - 1], "down"))
            widths = [before] + [width] * depth
            self.down.append(nn.ModuleList(ResBlock(widths[i], widths[i + 1], lengths[level]) for i in range(depth)))
        last = channels[-1]
        self.middle = nn.ModuleList(ResBlock(last, last, lengths[-1]) for _ in range(2))
        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level in reversed(range(len(channels))):
            width, before, depth = channels[level], channels[max(level - 1, 0)], depths[level]
            if level < len(channels) - 1:
                self.upsample.append(temporal_conv(width, width, lengths[level + 1], "up"))
            skips = [width] * depth + [before]
            outs = [width] * depth + [before]
            self.up.append(
                nn.ModuleList(ResBlock(width + s, o, lengths[level]) for s, o in zip(skips, outs, strict=True))
            )
        self._modulation_sizes = [size for block in self._blocks() for size in block.modulation_sizes]
        self.modulation = nn.Linear(cond_dim, sum(self._modulation_sizes))

    def _blocks(self) -> list[ResBlock]:
        return [block for block in self.modules() if isinstance(block, ResBlock)]

    def modulate(self, condition: Tensor) -> Tensor:
        """[..., D] -> [..., P]: scales and shifts of every block, in the order in which they are used."""
        return self.modulation(condition)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """[B,C,L] -> [B,C,L], with `modulation` [B,P] from `modulate`."""
        sizes = iter(modulation.split(self._modulation_sizes, dim=1))
        skips: list[list[Tensor]] = []
        for level, blocks in enumerate(self.down):
            if level > 0:
                x = self.downsample[level - 1](x)
            outputs = [x]
            for block in blocks:  # type: ignore[union-attr]
                x = block(x, next(sizes), next(sizes))
                outputs.append(x)
            skips.append(outputs)
        for block in self.middle:
            x = block(x, next(sizes), next(sizes))
        for stage, blocks in enumerate(self.up):
            if stage > 0:
                x = self.upsample[stage - 1](x)
            outputs = skips.pop()
            for block in blocks:  # type: ignore[union-attr]
                x = block(torch.cat([x, outputs.pop()], dim=1), next(sizes), next(sizes))
        return x


class FourierFeatures(nn.Module):
    """Random Fourier features of the noise level: [...] -> [..., D] (DIAMOND, arXiv 2405.12399)."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        """Draw D/2 fixed frequencies from N(0, 1); they are saved with the model."""
        super().__init__()
        self.register_buffer("frequencies", torch.randn(dim // 2))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Cosines and sines of 2 pi f c_noise."""
        angle = 2 * math.pi * c_noise[..., None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class GroupNorm(nn.Module):
    """`nn.GroupNorm` with weights, over [B,C,L]."""

    def __init__(self, channels: int) -> None:
        """Groups of 32 channels, weights 1 and biases 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,L] -> [B,C,L]."""
        return torch.addcmul(self.bias[:, None], _group_norm(x), self.weight[:, None])


def num_groups(channels: int) -> int:
    """Groups of a group norm over `channels`."""
    return max(1, channels // GROUP_SIZE)


def _adaptive_group_norm(x: Tensor, modulation: Tensor) -> Tensor:
    """Group norm without weights, then x * (1 + scale) + shift with scale and shift [B,C] from `modulation`."""
    scale, shift = modulation[:, :, None].chunk(2, dim=1)
    return torch.addcmul(shift, _group_norm(x), 1 + scale)


def _group_norm(x: Tensor) -> Tensor:
    """Group norm of [B,C,L], as layer norm of [B,groups,C/groups*L]: a group's channels lie side by side.

    The same numbers as `functional.group_norm`, with a much faster gradient.
    """
    grouped = x.reshape(x.shape[0], num_groups(x.shape[1]), -1)
    return functional.layer_norm(grouped, grouped.shape[2:], eps=GROUP_EPS).view(x.shape)
