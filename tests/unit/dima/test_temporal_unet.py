"""The U-Net over time against one of PyTorch's own convolutions and norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dima.temporal_unet import FourierFeatures, GroupNorm, TemporalUnet, _adaptive_group_norm
from worldmodel.contract.random_data import stir
from worldmodel.short_convolution import ShortConv, folded_convolutions


def make_unet() -> TemporalUnet:
    unet = TemporalUnet((64, 64, 64), (2, 2, 2), length=4, cond_dim=256)
    stir(unet)
    return unet


def test_folding_lays_each_kernel_out_once_and_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, calls = make_unet(), []
    lay_out = ShortConv.matrix
    monkeypatch.setattr(ShortConv, "matrix", lambda layer: calls.append(layer) or lay_out(layer))
    convs = [layer for layer in unet.modules() if isinstance(layer, ShortConv)]
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

    monkeypatch.setattr(ShortConv, "forward", lambda layer, x: layer.conv(x))

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
