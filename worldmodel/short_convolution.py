"""1-D convolutions over a short, fixed length, computed as one matrix product where that is faster.

Holds an ordinary `nn.Conv1d` (or `nn.ConvTranspose1d`) and gives its result. At lengths of a few entries libraries'
convolution kernels, above all their gradients, take several times as long as a product with the kernel laid out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

DENSE_UP_TO = 8
"""Longest input that is multiplied: measured on a CPU at 16 to 64 channels and batches of 32 and 128."""


class ShortConv(nn.Module):
    """[B,C_in,L_in] -> [B,C_out,L_out].

    Kinds: `same` (odd kernel, length kept), `down` (kernel 3, stride 2) and `up` (transposed, kernel 4, stride 2).
    """

    placement: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        length: int,
        kind: Literal["same", "down", "up"] = "same",
        kernel: int = 3,
        *,
        dense: bool | None = None,
    ) -> None:
        """Initialise as the convolution that it stands for (PyTorch's default); `kernel` is for `same`.

        `dense`: whether to multiply by the kernel laid out; None: where `length` is at most `DENSE_UP_TO`.
        """
        super().__init__()
        self.conv: nn.Conv1d | nn.ConvTranspose1d
        if kind == "up":
            self.conv = nn.ConvTranspose1d(in_channels, out_channels, 4, stride=2, padding=1)
        elif kind == "down":
            self.conv = nn.Conv1d(in_channels, out_channels, 3, stride=2, padding=1)
        else:
            self.conv = nn.Conv1d(in_channels, out_channels, kernel, padding=kernel // 2)
        stride, padding = self.conv.stride[0], int(self.conv.padding[0])
        self.in_length = length
        self.out_length = length * stride if kind == "up" else -(-length // stride)
        self.is_dense = length <= DENSE_UP_TO if dense is None else dense
        self._folded: tuple[Tensor, Tensor] | None = None
        out_index, in_index = torch.arange(self.out_length)[:, None], torch.arange(length)[None]
        tap = out_index + padding - 2 * in_index if kind == "up" else in_index + padding - out_index * stride
        # [k, L_out*L_in]: which tap of the kernel joins which input to which output; taps outside it join nothing.
        placement = tap.flatten() == torch.arange(self.conv.kernel_size[0])[:, None]
        self.register_buffer("placement", placement.to(self.conv.weight.dtype), persistent=False)

    def matrix(self) -> tuple[Tensor, Tensor]:
        """The layer as a matrix [C_out*L_out, C_in*L_in] and a bias [C_out*L_out]."""
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        if isinstance(self.conv, nn.ConvTranspose1d):
            weight = weight.transpose(0, 1)
        dense = (weight @ self.placement).unflatten(2, (self.out_length, self.in_length))
        # [C_out, C_in, L_out, L_in] -> [C_out*L_out, C_in*L_in]
        return dense.transpose(1, 2).flatten(2).flatten(0, 1), bias.repeat_interleave(self.out_length)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of x."""
        if not self.is_dense:
            return self.conv(x)
        matrix, bias = self._folded or self.matrix()
        return functional.linear(x.flatten(1), matrix, bias).unflatten(1, (-1, self.out_length))


@contextmanager
def folded_convolutions(module: nn.Module) -> Iterator[None]:
    """Lay out every dense `ShortConv` in `module` once for all calls inside the block: a sampler makes many.

    No weight may change inside. The caller marks that stretch because a layer could not find out by itself: fused
    optimisers and replayed CUDA graphs write weights without raising their version counters.
    """
    convs = [part for part in module.modules() if isinstance(part, ShortConv) and part.is_dense and not part._folded]
    for conv in convs:
        conv._folded = conv.matrix()
    try:
        yield
    finally:
        for conv in convs:
            conv._folded = None
