"""Convolutions as matrix products, and the U-Net that is made of them, against PyTorch's own convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dima.temporal_unet import (
    FourierFeatures,
    GroupNorm,
    TemporalConv,
    TemporalUnet,
    _adaptive_group_norm,
    folded_convolutions,
)
from worldmodel.contract.random_data import stir

Kind = Literal["same", "down", "up"]


def make_unet() -> TemporalUnet:
    unet = TemporalUnet((64, 64, 64), (2, 2, 2), length=4, cond_dim=256)
    stir(unet)
    return unet


def as_plain_convolution(layer: TemporalConv, x: Tensor) -> Tensor:
    """What PyTorch's convolution makes of the same weights."""
    return layer.conv(x)


@given(
    kind=st.sampled_from(["same", "down", "up"]),
    length=st.integers(1, 9),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
)
def test_equals_the_convolution_in_value_and_gradient(kind: Kind, length: int, sizes: tuple[int, int, int]) -> None:
    batch, in_channels, out_channels = sizes
    layer = TemporalConv(in_channels, out_channels, length, kind)
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


def _adamw(*, foreach: bool = False, fused: bool = False) -> Callable[[TemporalConv, Tensor], None]:
    def step(layer: TemporalConv, x: Tensor) -> None:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, foreach=foreach, fused=fused)
        layer(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _load(layer: TemporalConv, x: Tensor) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()})


def _load_by_assignment(layer: TemporalConv, x: Tensor) -> None:
    layer.load_state_dict({name: value + 1 for name, value in layer.state_dict().items()}, assign=True)


def _edit_in_place(layer: TemporalConv, x: Tensor) -> None:
    layer.conv.weight.data.mul_(3)
    assert layer.conv.bias is not None
    layer.conv.bias.data.add_(1)


CHANGES: dict[str, Callable[[TemporalConv, Tensor], None]] = {
    "plain AdamW": _adamw(),
    "foreach AdamW": _adamw(foreach=True),
    "fused AdamW": _adamw(fused=True),
    "load_state_dict": _load,
    "load_state_dict by assignment": _load_by_assignment,
    "edit in place": _edit_in_place,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", ["same", "up"])
def test_weights_that_changed_are_the_ones_used(change: Callable[[TemporalConv, Tensor], None], kind: Kind) -> None:
    layer = TemporalConv(3, 4, 4, kind)
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
    layer = TemporalConv(3, 4, 4)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    with torch.no_grad(), folded_convolutions(layer):
        layer(x.float())

    layer.to(torch.float64)

    with torch.no_grad(), folded_convolutions(layer):
        assert layer(x).dtype == torch.float64
        torch.testing.assert_close(layer(x), as_plain_convolution(layer, x))


def test_folding_lays_each_kernel_out_once_and_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, calls = make_unet(), []
    lay_out = TemporalConv.matrix
    monkeypatch.setattr(TemporalConv, "matrix", lambda layer: calls.append(layer) or lay_out(layer))
    convs = [layer for layer in unet.modules() if isinstance(layer, TemporalConv)]
    x, modulation = torch.randn(2, 64, 4), unet.modulate(torch.randn(2, 256))

    with torch.no_grad():
        bare = unet(x, modulation)
        calls.clear()
        with folded_convolutions(unet):
            with folded_convolutions(unet):
                first = unet(x, modulation)
            second = unet(x, modulation)
    assert sorted(map(id, calls)) == sorted(map(id, convs))
    assert torch.equal(bare, first)
    assert torch.equal(bare, second)

    with pytest.raises(RuntimeError, match="inside"), folded_convolutions(unet):
        raise RuntimeError("inside")
    calls.clear()
    unet(x, modulation).sum().backward()
    assert sorted(map(id, calls)) == sorted(map(id, convs)), "training lays the kernels out anew, also after an error"


def test_unet_of_table_3_has_the_published_size() -> None:
    unet = TemporalUnet((64, 64, 64), (2, 2, 2), length=4, cond_dim=256)

    assert sum(parameter.numel() for parameter in unet.parameters()) == 2_076_992


def test_unet_goes_from_length_4_to_1_and_back() -> None:
    unet, lengths = make_unet(), []
    for blocks in (unet.down, unet.downsample, [unet.middle], unet.upsample, unet.up):
        for block in blocks:
            first = block[0] if isinstance(block, nn.ModuleList) else block
            assert isinstance(first, nn.Module)
            first.register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[-1]))

    out = unet(torch.randn(3, 64, 4), unet.modulate(torch.randn(3, 256)))

    # blocks, downsampling, blocks, downsampling, blocks, the middle, blocks, upsampling, blocks, upsampling, blocks
    assert lengths == [4, 2, 2, 1, 1, 1, 1, 2, 2, 4, 4]
    assert out.shape == (3, 64, 4)


@pytest.mark.parametrize(("channels", "depths", "length"), [((32, 64), (1, 2), 2), ((8, 16, 24, 8), (1, 1, 2, 1), 8)])
def test_unet_of_unequal_levels_keeps_its_shape(
    channels: tuple[int, ...], depths: tuple[int, ...], length: int
) -> None:
    unet = TemporalUnet(channels, depths, length, cond_dim=6)

    out = unet(torch.randn(3, channels[0], length), unet.modulate(torch.randn(3, 6)))

    assert out.shape == (3, channels[0], length)


def test_unet_equals_one_of_plain_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = make_unet()
    x, modulation = torch.randn(5, 64, 4), unet.modulate(torch.randn(5, 256))
    ours = unet(x, modulation)

    monkeypatch.setattr(TemporalConv, "forward", as_plain_convolution)

    torch.testing.assert_close(ours, unet(x, modulation), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "groups", "length"), [(8, 1, 1), (32, 1, 4), (96, 3, 2), (128, 4, 1)])
def test_group_norms_are_pytorchs(channels: int, groups: int, length: int) -> None:
    """Groups of 32 channels; the adaptive one multiplies by 1 + scale, the first half of its modulation."""
    x = 3 * torch.randn(5, channels, length) + 1
    norm = GroupNorm(channels)
    stir(norm)
    scale, shift = torch.randn(2, 5, channels)

    plain, adaptive = norm(x), _adaptive_group_norm(x, torch.cat([scale, shift], dim=1))

    torch.testing.assert_close(plain, nn.functional.group_norm(x, groups, norm.weight, norm.bias))
    expected = nn.functional.group_norm(x, groups) * (1 + scale[..., None]) + shift[..., None]
    torch.testing.assert_close(adaptive, expected, rtol=1e-4, atol=1e-5)


def test_every_scale_and_shift_has_a_say() -> None:
    unet = make_unet()
    modulation = unet.modulate(torch.randn(8, 256)).detach().requires_grad_()

    unet(torch.randn(8, 64, 4), modulation).square().sum().backward()

    assert modulation.grad is not None
    assert modulation.grad.ne(0).any(dim=0).all()


def test_a_fresh_block_passes_its_input_on() -> None:
    unet = TemporalUnet((16,), (2,), length=4, cond_dim=6)
    for block in unet.middle:
        assert isinstance(block, nn.Module)
        nn.init.zeros_(block.get_parameter("conv2.conv.bias"))
    block, x = unet.middle[0], torch.randn(3, 16, 4)

    torch.testing.assert_close(block(x, torch.randn(3, 32), torch.randn(3, 32)), x)


@pytest.mark.parametrize(("channels", "depths", "length"), [((8, 8, 8), (1, 1, 1), 6), ((8, 8), (1,), 4)])
def test_impossible_unets_are_refused(channels: tuple[int, ...], depths: tuple[int, ...], length: int) -> None:
    with pytest.raises(ValueError, match=f"halvings of the length {length}"):
        TemporalUnet(channels, depths, length, cond_dim=6)


def test_fourier_features_are_cosines_and_sines_that_are_saved() -> None:
    features = FourierFeatures(6)
    noise = torch.tensor([[0.3], [-1.2]])

    angle = 2 * torch.pi * noise[..., None] * features.frequencies
    torch.testing.assert_close(features(noise), torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1))
    assert "frequencies" in features.state_dict()
