"""The conditional U-Net for sampling: the same weights and numbers as `ConditionalUnet1d`, in fewer and cheaper calls.

A state of some twenty numbers is so short that libraries' convolutions cost ten times their arithmetic. Here positions
come first and channels last, windows are laid side by side, and each convolution is one product with the kernel as it
lies in memory: nothing is packed, so nothing can be out of date. What every step needs of the condition is computed
once for all steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.inference.unet import ConditionalUnet1d, ConditionedBlock
from worldmodel.short_convolution import ShortConv


class _Product(NamedTuple):
    """A convolution as a product with windows of `width` entries, `stride` apart, zeros in front and behind."""

    weight: Tensor
    """[outputs, C_in*width]."""
    bias: Tensor
    width: int
    stride: int
    before: int
    after: int

    def __call__(self, h: Tensor) -> Tensor:
        """[B,L,C] -> [B,windows,outputs]."""
        if self.width == 1:
            return functional.linear(h, self.weight, self.bias)
        padded = functional.pad(h, (0, 0, self.before, self.after))
        return functional.linear(padded.unfold(1, self.width, self.stride).flatten(2), self.weight, self.bias)


class _Block(NamedTuple):
    """A residual block; `offset` and `size`: where in all blocks' conditions its own lie."""

    first: _Product
    first_norm: nn.GroupNorm
    second: _Product
    second_norm: nn.GroupNorm
    residual: _Product | None
    offset: int
    size: int

    def __call__(self, h: Tensor, condition: Tensor) -> Tensor:
        """[B,L,C_in] -> [B,L,C_out] under all blocks' conditions [B,P]."""
        own = condition[:, None, self.offset : self.offset + self.size]
        inside = _normalized(self.first(h), self.first_norm) + own
        return _normalized(self.second(inside), self.second_norm) + (h if self.residual is None else self.residual(h))


class FastUnet:
    """A `ConditionalUnet1d` as it is now, for one chain of reverse steps; without gradients.

    Args:
        unet: whose weights are used; none may change meanwhile.
        num_steps: K.
    """

    def __init__(self, unet: ConditionalUnet1d, num_steps: int) -> None:
        self._unet = unet
        self._conditions: list[nn.Linear] = []
        self._offset = 0
        self._down = [self._blocks(level) for level in unet.down]
        self._middle = self._blocks(unet.middle)
        self._up = [self._blocks(level) for level in unet.up]
        self._shrink = [_convolution(layer) for layer in unet.shrink]
        self._grow = [_transposed(layer) for layer in unet.grow]
        self._out = _convolution(unet.out[0][0])  # type: ignore[index]
        self._last = _convolution(unet.out[1])
        step = torch.arange(num_steps, device=self._out.bias.device)
        self._steps = unet.step_embedding(step)

    def conditions(self, embedded: Tensor) -> Tensor:
        """What is added inside all blocks at each of the K steps [K,B,P]; `embedded` [B,D] as for the plain U-Net."""
        weight = torch.cat([layer.weight for layer in self._conditions])
        bias = torch.cat([layer.bias for layer in self._conditions])
        return functional.linear(functional.mish(self._steps[:, None] + embedded), weight, bias)

    def __call__(self, noisy: Tensor, condition: Tensor) -> Tensor:
        """The predicted noise [B,S] in `noisy` [B,S] under one step's `condition` [B,P]."""
        unet = self._unet
        h = functional.pad(noisy, (0, unet.padding))[:, :, None]
        skips: list[Tensor] = []
        for i, blocks in enumerate(self._down):
            if i > 0:
                h = self._shrink[i - 1](h)
            h = _run(blocks, h, condition)
            skips.append(h)
        h = _run(self._middle, h, condition)
        for blocks, grow in zip(self._up, self._grow, strict=True):
            h = grow(_run(blocks, torch.cat([h, skips.pop()], dim=2), condition))
            h = h.unflatten(2, (2, -1)).flatten(1, 2)  # [B, L, 2*C] -> [B, 2*L, C]
        h = self._last(_normalized(self._out(h), unet.out[0][1]))  # type: ignore[index]
        return h[:, : unet.state_dim, 0]

    def _blocks(self, level: nn.Module) -> list[_Block]:
        blocks: list[_Block] = []
        for block in level.children():
            assert isinstance(block, ConditionedBlock)
            condition, residual = block.condition[1], block.residual
            assert isinstance(condition, nn.Linear)
            (first, first_norm, _), (second, second_norm, _) = block.first, block.second
            assert isinstance(first_norm, nn.GroupNorm)
            assert isinstance(second_norm, nn.GroupNorm)
            blocks.append(
                _Block(
                    _convolution(first),
                    first_norm,
                    _convolution(second),
                    second_norm,
                    _convolution(residual) if isinstance(residual, ShortConv) else None,
                    self._offset,
                    condition.out_features,
                )
            )
            self._conditions.append(condition)
            self._offset += condition.out_features
        return blocks


def _run(blocks: list[_Block], h: Tensor, condition: Tensor) -> Tensor:
    for block in blocks:
        h = block(h, condition)
    return h


def _convolution(layer: nn.Module) -> _Product:
    assert isinstance(layer, ShortConv)
    conv = layer.conv
    assert conv.bias is not None
    width, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    return _Product(conv.weight.flatten(1), conv.bias, width, stride, padding, padding)


def _transposed(layer: nn.Module) -> _Product:
    """A transposed convolution (kernel 4, stride 2): each window of three inputs gives two outputs side by side."""
    assert isinstance(layer, ShortConv)
    weight, bias = layer.conv.weight, layer.conv.bias
    assert bias is not None
    # Outputs 2i and 2i+1 see inputs i-1, i, i+1 through these taps of the kernel; the fifth is zero.
    taps = torch.tensor([[3, 1, 4], [4, 2, 0]], device=weight.device)
    windows = functional.pad(weight, (0, 1))[:, :, taps]  # [C_in, C_out, 2, 3]
    return _Product(windows.permute(2, 1, 0, 3).flatten(2).flatten(0, 1), bias.repeat(2), 3, 1, 1, 1)


def _normalized(h: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm and Mish of [B,L,C]."""
    images = h.transpose(1, 2)[:, :, :, None]  # [B,C,L,1], as PyTorch's kernel for channels that lie last wants them
    normal = torch.group_norm(images, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return functional.mish(normal[:, :, :, 0].transpose(1, 2))
