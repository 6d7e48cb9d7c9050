"""What training saves against the plain way to compute it: losses, gradients and fifty updates."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.action_tokens import AttentionActionEncoder
from dima.conditioning import PerceiverActionEncoder
from dima.denoiser import Denoiser
from dima.run.optimize import PartOptimizer
from tests.support.dima_models import lively_dima, make_spec
from worldmodel.contract.random_data import random_segment

SPEC = make_spec(num_agents=3)
UPDATES = 50


def train(updates: int) -> tuple[list[Tensor], list[Tensor], Denoiser]:
    """The losses of each update, the gradients of the first, and the denoiser afterwards."""
    denoiser = lively_dima(SPEC, "denoiser.num_targets=3", "denoiser.optim.learning_rate=1e-3").train().denoiser
    optimizer, generator = PartOptimizer("denoiser", denoiser), torch.Generator().manual_seed(1)
    losses, gradients = [], list[Tensor]()
    for update in range(updates):
        segment = random_segment(SPEC, 8, denoiser.segment_length, generator)
        losses.append(optimizer.update(segment, generator)["denoiser_loss"])
        if update == 0:
            gradients = [parameter.grad.clone() for parameter in denoiser.parameters() if parameter.grad is not None]
    return losses, gradients, denoiser


def test_kernels_laid_out_once_for_all_targets_teach_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, gradients, denoiser = train(UPDATES)
    monkeypatch.setattr(Denoiser, "frozen", lambda self: nullcontext())  # each call lays them out for itself
    plain_losses, plain_gradients, plain = train(UPDATES)

    assert len(gradients) == len(plain_gradients) > 20
    for gradient, expected in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.stack(losses), torch.stack(plain_losses), rtol=1e-3, atol=1e-5)
    for (name, weight), expected in zip(denoiser.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-2, atol=1e-4, msg=name)


def naive_layers(encoder: Any, x: Tensor) -> Tensor:
    """Attention and feed-forward layers in full, and only then the mean."""
    for attend, feed in zip(encoder.attend, encoder.feed, strict=True):
        x = x + attend(x)
        x = x + feed(x)
    return encoder.out(x.mean(dim=1))


@pytest.mark.parametrize("num_agents", [1, 2, 5])
def test_the_mean_before_the_last_map_is_the_mean_after_it(num_agents: int) -> None:
    torch.manual_seed(0)
    encoder = AttentionActionEncoder(num_agents, 3, 16, num_layers=3, num_heads=2, head_dim=4)
    action = torch.randn(6, num_agents, 3)

    expected = naive_layers(encoder, encoder.embed(action) + encoder.agent)
    torch.testing.assert_close(encoder(action), expected, rtol=1e-5, atol=1e-6)

    (encoder(action) ** 2).sum().backward()
    fast = [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
    encoder.zero_grad()
    (naive_layers(encoder, encoder.embed(action) + encoder.agent) ** 2).sum().backward()
    for got, parameter in zip(fast, encoder.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_large_encoder_ends_in_the_same_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"_LATENTS": 4, "_LATENT_DIM": 32, "_HEAD_DIM": 8}.items():
        monkeypatch.setattr(PerceiverActionEncoder, name, size)
    torch.manual_seed(0)
    encoder = PerceiverActionEncoder(2, 3, 2, 16)
    past, action = torch.randn(5, 2, 2, 3), torch.randn(5, 2, 3)
    everybody = torch.ones(1, 5, 2, dtype=torch.bool)

    older, by_agent = encoder.tokens(past, action)
    context = torch.cat([older, by_agent], dim=1)
    x = encoder.latents.expand(5, -1, -1)
    x = x + encoder.read(x, context, torch.ones(5, 1, context.shape[1], dtype=torch.bool))
    x = x + encoder.read_feed(x)

    torch.testing.assert_close(
        encoder.pool((older, by_agent), everybody)[0], naive_layers(encoder, x), rtol=1e-5, atol=1e-6
    )
