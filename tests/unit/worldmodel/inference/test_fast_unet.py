"""The U-Net for sampling gives the plain one's numbers, with its weights as they are at each call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.inference_models import inference_config
from worldmodel.contract.random_data import stir
from worldmodel.inference.fast_unet import FastUnet
from worldmodel.inference.globediff import GlobeDiff
from worldmodel.inference.unet import ConditionalUnet1d

STEPS = 5


def lively(state_dim: int, channels: tuple[int, ...], num_blocks: int = 1) -> ConditionalUnet1d:
    torch.manual_seed(0)
    unet = ConditionalUnet1d(state_dim, 6, channels, num_blocks, cond_dim=12, groups=8)
    stir(unet)
    return unet


@torch.no_grad()
def answers(unet: ConditionalUnet1d, noisy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The noise [K,B,S] that the fast and the plain U-Net predict at every step."""
    fast = FastUnet(unet, STEPS)
    embedded = unet.embed_condition(y)
    conditions = fast.conditions(embedded)
    plain = [unet(noisy, torch.full((len(noisy),), step), embedded) for step in range(STEPS)]
    return torch.stack([fast(noisy, conditions[step]) for step in range(STEPS)]), torch.stack(plain)


@settings(max_examples=12)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 2), st.integers(1, 4))
def test_it_predicts_the_same_noise(state_dim: int, levels: int, num_blocks: int, rows: int) -> None:
    unet = lively(state_dim, (8, 16, 24, 32)[:levels], num_blocks).double()
    g = torch.Generator().manual_seed(state_dim)
    noisy, y = (torch.randn(rows, size, generator=g).double() for size in (state_dim, 6))
    torch.testing.assert_close(*answers(unet, noisy, y))


@torch.no_grad()
def test_it_reads_the_weights_of_the_moment() -> None:
    unet = lively(9, (8, 16))
    g = torch.Generator().manual_seed(0)
    noisy, y = torch.randn(3, 9, generator=g), torch.randn(3, 6, generator=g)
    before, _ = answers(unet, noisy, y)
    stir(unet, seed=1)
    fast, plain = answers(unet, noisy, y)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, fast)


@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_a_whole_chain_ends_in_the_same_state(preset: str) -> None:
    torch.manual_seed(0)
    law = GlobeDiff(inference_config("globediff", preset=preset), 58, 17)
    law.requires_grad_(False)
    x, noise = torch.randn(4, 58), law.draw_noise(4, torch.Generator().manual_seed(0))
    found = law.sample(x, noise)
    networks: Any = law.networks if law.averaged is None else law.averaged.module
    y = torch.cat([x, networks.prior(x).sample(noise[:, :16])], dim=1)
    embedded, chain = networks.denoiser.embed_condition(y), noise[:, 16:].unflatten(1, (6, 17))
    s = chain[:, 0]
    for step in (4, 3, 2, 1, 0):
        epsilon = networks.denoiser(s, torch.full((4,), step), embedded)
        s = law.reverse.denoise(s, epsilon, step, chain[:, step + 1])
    torch.testing.assert_close(found, s, rtol=1e-5, atol=1e-5)
