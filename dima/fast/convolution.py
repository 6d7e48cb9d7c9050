"""Temporal convolutions as matrix products over [B, L*C], time before channels, without the products by zero.

Why: at length 4 a kernel of 3 fills 10 of the 16 blocks of its matrix. Two products, each for two output positions and
the three input positions that they see, do 12 blocks of work, and with the channels innermost a 1x1 convolution or a
group norm needs no copy.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.short_convolution import ShortConv


class _Piece(NamedTuple):
    """One matrix product: which inputs it reads and which outputs it writes, columns of [B, L*C]."""

    inputs: slice
    outputs: slice
    weight: Tensor
    """[K, M]."""
    bias: Tensor
    """[M]."""


class PackedConv:
    """A `ShortConv` with its kernel laid out: [B, L_in*C_in] -> [B, L_out*C_out]."""

    def __init__(self, conv: ShortConv, dtype: torch.dtype) -> None:
        """Copy the weights of `conv` as they are now, in `dtype`."""
        matrix, bias = position_major(conv)
        in_width = matrix.shape[0] // conv.in_length
        out_width = matrix.shape[1] // conv.out_length
        self.width = matrix.shape[1]
        self.pieces: list[_Piece] = []
        for (first, last), (begin, end) in _split(conv):
            inputs, outputs = slice(first * in_width, last * in_width), slice(begin * out_width, end * out_width)
            self.pieces.append(_Piece(inputs, outputs, packed(matrix[inputs, outputs], dtype), bias[outputs].to(dtype)))

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution of x [B, L_in*C_in]."""
        if len(self.pieces) == 1:
            piece = self.pieces[0]
            return torch.addmm(piece.bias, x[:, piece.inputs], piece.weight)
        out = x.new_empty(x.shape[0], self.width)
        for piece in self.pieces:
            torch.addmm(piece.bias, x[:, piece.inputs], piece.weight, out=out[:, piece.outputs])
        return out

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the convolution of `x`, without its bias, to `total` [B, L_out*C_out] in place."""
        for piece in self.pieces:
            total[:, piece.outputs].addmm_(x[:, piece.inputs], piece.weight)
        return total


def packed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy of `weight` that later training leaves alone."""
    return weight.to(dtype, copy=True, memory_format=torch.contiguous_format)


def position_major(conv: ShortConv) -> tuple[Tensor, Tensor]:
    """The matrix [L_in*C_in, L_out*C_out] and the bias [L_out*C_out] of `conv`."""
    matrix, bias = conv.matrix()
    # [C_out*L_out, C_in*L_in] -> [L_in*C_in, L_out*C_out]
    matrix = matrix.unflatten(1, (-1, conv.in_length)).unflatten(0, (-1, conv.out_length)).permute(3, 2, 1, 0)
    return matrix.reshape(matrix.shape[0] * matrix.shape[1], -1), bias.unflatten(0, (-1, conv.out_length)).t().flatten()


def _split(conv: ShortConv) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Ranges of input and of output positions: by pairs of outputs where these see fewer inputs, else all at once."""
    joins = conv.placement.sum(dim=0).unflatten(0, (conv.out_length, conv.in_length)) > 0
    pairs = [(begin, min(begin + 2, conv.out_length)) for begin in range(0, conv.out_length, 2)]
    ranges = []
    for begin, end in pairs:
        seen = joins[begin:end].any(dim=0).nonzero().flatten().tolist()
        ranges.append(((seen[0], seen[-1] + 1), (begin, end)))
    if all(first == 0 and last == conv.in_length for (first, last), _ in ranges):
        return [((0, conv.in_length), (0, conv.out_length))]
    assert all(a[1][1] == b[1][0] for a, b in itertools.pairwise(ranges))
    return ranges
