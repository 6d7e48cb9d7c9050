"""Convolutions as matrix products, folded and not, against PyTorch's own convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.short_convolution import DENSE_UP_TO, ShortConv, folded_convolutions

Kind = Literal["same", "down", "up"]


def as_plain_convolution(layer: ShortConv, x: Tensor) -> Tensor:
    """What PyTorch's convolution makes of the same weights."""
    return layer.conv(x)


@given(
    kind=st.sampled_from(["same", "down", "up"]),
    length=st.integers(1, 9),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    kernel=st.sampled_from([1, 3, 5]),
)
def test_equals_the_convolution_in_value_and_gradient(
    kind: Kind, length: int, sizes: tuple[int, int, int], kernel: int
) -> None:
    batch, in_channels, out_channels = sizes
    layer = ShortConv(in_channels, out_channels, length, kind, kernel, dense=True)
    x = torch.randn(batch, in_channels, length, requires_grad=True)
    inputs = [x, layer.conv.weight, layer.conv.bias]

    ours, theirs = layer(x), as_plain_convolution(layer, x)
    direction = torch.randn_like(theirs)
    our_gradients = torch.autograd.grad(ours, inputs, direction)
    their_gradients = torch.autograd.grad(theirs, inputs, direction)

    assert layer.out_length == theirs.shape[-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, reference in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)


def _adamw(*, foreach: bool = False, fused: bool = False) -> Callable[[ShortConv, Tensor], None]:
    def step(layer: ShortConv, x: Tensor) -> None:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, foreach=foreach, fused=fused)
        layer(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _load(layer: ShortConv, x: Tensor) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})


def _load_by_assignment(layer: ShortConv, x: Tensor) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()}, assign=True)


def _edit_in_place(layer: ShortConv, x: Tensor) -> None:
    layer.conv.weight.data.mul_(3)
    assert layer.conv.bias is not None
    layer.conv.bias.data.add_(1)


CHANGES: dict[str, Callable[[ShortConv, Tensor], None]] = {
    "plain AdamW": _adamw(),
    "foreach AdamW": _adamw(foreach=True),
    "fused AdamW": _adamw(fused=True),
    "load_state_dict": _load,
    "load_state_dict by assignment": _load_by_assignment,
    "edit in place": _edit_in_place,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", ["same", "up"])
def test_weights_that_changed_are_the_ones_used(change: Callable[[ShortConv, Tensor], None], kind: Kind) -> None:
    layer = ShortConv(3, 4, 4, kind)
    x = torch.randn(2, 3, 4)
    with torch.no_grad(), folded_convolutions(layer):
        before = layer(x)

    change(layer, x)

    with torch.no_grad():
        bare = layer(x)
        with folded_convolutions(layer):
            folded = layer(x)
    assert not torch.allclose(before, bare)
    assert torch.equal(bare, folded)
    torch.testing.assert_close(bare, as_plain_convolution(layer, x))


def test_a_layer_follows_a_change_of_precision() -> None:
    layer = ShortConv(3, 4, 4)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    with torch.no_grad(), folded_convolutions(layer):
        layer(x.float())

    layer.to(torch.float64)

    with torch.no_grad(), folded_convolutions(layer):
        assert layer(x).dtype == torch.float64
        torch.testing.assert_close(layer(x), as_plain_convolution(layer, x))


def test_long_inputs_are_left_to_pytorch_unless_told_otherwise() -> None:
    lengths = (DENSE_UP_TO, DENSE_UP_TO + 1)
    assert [ShortConv(1, 1, length).is_dense for length in lengths] == [True, False]
    assert [ShortConv(1, 1, length, dense=True).is_dense for length in lengths] == [True, True]
    layer, x = ShortConv(3, 4, DENSE_UP_TO + 1), torch.randn(2, 3, DENSE_UP_TO + 1)
    with torch.no_grad(), folded_convolutions(layer):
        assert torch.equal(layer(x), as_plain_convolution(layer, x))
