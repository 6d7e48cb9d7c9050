"""The conditional 1-D U-Net of GlobeDiff (Appendix D): Diffuser's, with the state as one channel of length S.

Block: twice (convolution of width 5, group norm, Mish); the condition vector passes Mish and a linear layer and is
added between the two (Janner et al., arXiv 2205.09991, `diffuser/models/temporal.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.short_convolution import ShortConv

KERNEL = 5


class StepEmbedding(nn.Module):
    """Sinusoids of the diffusion step [B] -> [B,D]."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        """D = `dim`, an even number of at least 4."""
        super().__init__()
        half = dim // 2
        rates = torch.exp(-math.log(10000.0) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", rates, persistent=False)

    def forward(self, step: Tensor) -> Tensor:
        """Sines, then cosines."""
        angle = step[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class GroupNorm(nn.GroupNorm):
    """PyTorch's, as layer norm of [B,groups,C/groups*L]: the same numbers, faster, and a single one is no error."""

    def forward(self, input: Tensor) -> Tensor:
        """[B,C,L] -> [B,C,L]."""
        grouped = input.reshape(input.shape[0], self.num_groups, -1)
        normal = functional.layer_norm(grouped, grouped.shape[2:], eps=self.eps).view(input.shape)
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None])


def _conv_block(in_channels: int, out_channels: int, length: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        ShortConv(in_channels, out_channels, length, kernel=KERNEL),
        GroupNorm(groups, out_channels),
        nn.Mish(),
    )


class ConditionedBlock(nn.Module):
    """[B,C_in,L] -> [B,C_out,L] under a condition [B,D]."""

    def __init__(self, in_channels: int, out_channels: int, length: int, cond_dim: int, groups: int) -> None:
        super().__init__()
        self.first = _conv_block(in_channels, out_channels, length, groups)
        self.second = _conv_block(out_channels, out_channels, length, groups)
        self.condition = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, out_channels))
        is_same = in_channels == out_channels
        self.residual = nn.Identity() if is_same else ShortConv(in_channels, out_channels, length, kernel=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The block with its residual."""
        h = self.first(x) + self.condition(condition)[:, :, None]
        return self.second(h) + self.residual(x)


class ConditionalUnet1d(nn.Module):
    """Noise in a state [B,S] at a diffusion step [B] under a condition [B,Y].

    Each level but the last halves the length; the state is padded with zeros to a length that can be halved so often.
    """

    def __init__(
        self, state_dim: int, cond_in: int, channels: Sequence[int], num_blocks: int, cond_dim: int, groups: int
    ) -> None:
        """Levels of `num_blocks` blocks with `channels[i]` channels, for states of S = `state_dim` numbers."""
        super().__init__()
        self.state_dim = state_dim
        self.padding = -state_dim % 2 ** (len(channels) - 1)
        self.step_embedding = nn.Sequential(
            StepEmbedding(cond_dim),
            nn.Linear(cond_dim, 4 * cond_dim),
            nn.Mish(),
            nn.Linear(4 * cond_dim, cond_dim),
        )
        self.embed = nn.Sequential(nn.Linear(cond_in, 4 * cond_dim), nn.Mish(), nn.Linear(4 * cond_dim, cond_dim))

        def level(in_channels: int, out_channels: int, length: int) -> nn.ModuleList:
            widths = [in_channels] + [out_channels] * num_blocks
            return nn.ModuleList(
                ConditionedBlock(a, b, length, cond_dim, groups) for a, b in zip(widths[:-1], widths[1:], strict=True)
            )

        before = [1, *channels[:-1]]
        lengths = [(state_dim + self.padding) // 2**i for i in range(len(channels))]
        self.down = nn.ModuleList(level(*sizes) for sizes in zip(before, channels, lengths, strict=True))
        self.shrink = nn.ModuleList(
            ShortConv(c, c, length, "down") for c, length in zip(channels[:-1], lengths[:-1], strict=True)
        )
        self.middle = level(channels[-1], channels[-1], lengths[-1])
        rising, growing = list(reversed(channels)), list(reversed(lengths))
        self.up = nn.ModuleList(
            level(2 * a, b, length) for a, b, length in zip(rising[:-1], rising[1:], growing[:-1], strict=True)
        )
        self.grow = nn.ModuleList(
            ShortConv(c, c, length, "up") for c, length in zip(rising[1:], growing[:-1], strict=True)
        )
        self.out = nn.Sequential(
            _conv_block(channels[0], channels[0], lengths[0], groups), ShortConv(channels[0], 1, lengths[0], kernel=1)
        )

    def embed_condition(self, y: Tensor) -> Tensor:
        """What of the condition is the same at every step: [B,Y] -> [B,D]."""
        return self.embed(y)

    def forward(self, noisy: Tensor, step: Tensor, embedded: Tensor) -> Tensor:
        """The predicted noise [B,S]; `embedded` [B,D] from `embed_condition`, `step` [B] from 0."""
        condition = embedded + self.step_embedding(step)
        h = functional.pad(noisy, (0, self.padding))[:, None]
        skips: list[Tensor] = []
        for i, blocks in enumerate(self.down):
            if i > 0:
                h = self.shrink[i - 1](h)
            h = _run(blocks, h, condition)
            skips.append(h)
        h = _run(self.middle, h, condition)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            h = grow(_run(blocks, torch.cat([h, skips.pop()], dim=1), condition))
        return self.out(h)[:, 0, : self.state_dim]


def _run(blocks: nn.Module, h: Tensor, condition: Tensor) -> Tensor:
    for block in blocks.children():
        h = block(h, condition)
    return h
