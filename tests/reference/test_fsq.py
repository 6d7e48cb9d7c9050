"""Finite scalar quantisation, as the state decoder builds it, against its definition (arXiv 2309.15505)."""

from __future__ import annotations

import torch

from dima.decoder import DecoderConfig, build_quantizer
from worldmodel.config import OptimConfig

LEVELS = (8, 6, 5)
CONFIG = DecoderConfig(
    quantizer="fsq",
    hidden_dim=8,
    num_layers=2,
    num_tokens=12,
    levels=LEVELS,
    code_dim=8,
    num_codes=8,
    codebook_decay=0.8,
    commitment_weight=0.0,
    loss="absolute",
    target="raw",
    optim=OptimConfig(learning_rate=1e-3, weight_decay=0.0, grad_clip=1.0, batch_size=1),
)


def test_each_channel_takes_exactly_its_levels() -> None:
    codes, _ = build_quantizer(CONFIG)(5 * torch.randn(2000, 12, 3))
    expected = ([k / 4 for k in range(-4, 4)], [k / 3 for k in range(-3, 3)], [k / 2 for k in range(-2, 3)])
    for channel, values in enumerate(expected):
        torch.testing.assert_close(codes[..., channel].unique(), torch.tensor(values))


def test_values_equal_the_rounded_bound() -> None:
    z = 2 * torch.randn(500, 12, 3, dtype=torch.float64)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0).double()
    bounded = torch.tanh(z + torch.atanh(offset / half)) * half - offset
    codes, _ = build_quantizer(CONFIG)(z)
    torch.testing.assert_close(codes, bounded.round() / (levels // 2), atol=1e-6, rtol=0)


def test_the_gradient_passes_the_rounding_through_the_bound() -> None:
    z = torch.randn(50, 12, 3, dtype=torch.float64, requires_grad=True)
    build_quantizer(CONFIG)(z)[0].sum().backward()
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0).double()
    slope = (1 - torch.tanh(z.detach() + torch.atanh(offset / half)).square()) * half / (levels // 2)
    assert z.grad is not None
    assert bool((z.grad > 0).all())
    torch.testing.assert_close(z.grad, slope, atol=1e-6, rtol=1e-6)
