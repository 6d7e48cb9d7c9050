"""The critic's units and its losses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from imagination.critic import CriticConfig, ValueNormalizer

Config = Callable[..., CriticConfig]


def test_value_statistics_are_the_identity_then_the_first_batch() -> None:
    normalizer = ValueNormalizer(0.99999, 1e-2)
    value = torch.randn(100) * 5 + 300
    assert torch.equal(normalizer.normalize(value), value)
    assert torch.equal(normalizer.denormalize(value), value)
    normalizer.update(value, torch.ones(100))
    z = normalizer.normalize(value)
    assert z.mean().item() == pytest.approx(0, abs=1e-3)
    assert z.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(normalizer.denormalize(z), value, rtol=1e-6, atol=1e-3)


def test_value_statistics_are_debiased_averages() -> None:
    normalizer = ValueNormalizer(0.9, 1e-2)
    batches = [torch.full((10,), mean) + torch.linspace(-1, 1, 10) for mean in (0.0, 10.0, 20.0)]
    for batch in batches:
        normalizer.update(batch, torch.ones(10))
    weights = torch.tensor([0.81, 0.9, 1.0], dtype=torch.float64)
    weights /= weights.sum()
    mean = sum(w * b.double().mean() for w, b in zip(weights, batches, strict=True))
    square = sum(w * b.double().square().mean() for w, b in zip(weights, batches, strict=True))
    assert isinstance(mean, torch.Tensor)
    expected = (torch.tensor(3.0) - mean) / (square - mean**2).sqrt()
    torch.testing.assert_close(normalizer.normalize(torch.tensor(3.0)), expected.float())


def test_rows_without_weight_do_not_count() -> None:
    normalizer, other = ValueNormalizer(0.9, 1e-2), ValueNormalizer(0.9, 1e-2)
    value = torch.randn(20)
    normalizer.update(value, torch.cat([torch.ones(10), torch.zeros(10)]))
    other.update(value[:10], torch.ones(10))
    torch.testing.assert_close(normalizer.mean, other.mean)
    torch.testing.assert_close(normalizer.mean_square, other.mean_square)


def test_constant_targets_meet_the_variance_floor() -> None:
    normalizer = ValueNormalizer(0.9, 1e-2)
    normalizer.update(torch.full((10,), 5.0), torch.ones(10))
    assert normalizer.normalize(torch.tensor(5.1)).item() == pytest.approx(1.0, rel=1e-3)


def test_plain_loss_is_the_mean_squared_error(critic_config: Config) -> None:
    critic = critic_config(loss="mse", value_clip=None, value_normalization="none").build(3)
    view, target = torch.randn(32, 3), torch.randn(32)
    loss = critic.loss(view, target, torch.zeros(32), torch.ones(32))
    torch.testing.assert_close(loss, functional.mse_loss(critic(view), target))
    half = torch.cat([torch.full((16,), 2.0), torch.zeros(16)])
    weighted = critic.loss(view, target, torch.zeros(32), half)
    torch.testing.assert_close(weighted, functional.mse_loss(critic(view[:16]), target[:16]))


def test_clipped_huber_loss_row_by_row(critic_config: Config) -> None:
    critic = critic_config(loss="huber", huber_delta=1.0, value_clip=0.1, value_normalization="none").build(3)
    view, target = torch.randn(64, 3), 3 * torch.randn(64)
    old = critic(view).detach() + 0.3 * torch.randn(64)
    loss = critic.loss(view, target, old, torch.ones(64))

    def huber(error: float) -> float:
        return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5

    rows: list[float] = []
    for new, before, wanted in zip(critic(view).tolist(), old.tolist(), target.tolist(), strict=True):
        near = min(max(new, before - 0.1), before + 0.1)
        rows.append(max(huber(new - wanted), huber(near - wanted)))
    assert loss.item() == pytest.approx(sum(rows) / 64, rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"loss": "huber", "value_clip": 0.1}], ids=["paper", "published"])
def test_learns_values_far_from_zero(changes: dict[str, object], critic_config: Config) -> None:
    critic = critic_config(hidden_dims=[32], input_layer_norm=False, **changes).build(2)
    view = torch.rand(256, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    target = 500 + 100 * view[:, 0] * view[:, 1]
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(60):
        old = critic(view).detach()
        for _ in range(5):
            optimizer.zero_grad()
            critic.loss(view, target, old, torch.ones(256)).backward()
            optimizer.step()
    error = (critic.denormalize(critic(view)) - target).std() / target.std()
    assert error < 0.3
