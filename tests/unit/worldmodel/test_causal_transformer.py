"""The transformer sees the past only, and its cached steps repeat the full forward pass."""

from __future__ import annotations

import pytest
import torch

from worldmodel.causal_transformer import CausalTransformer, KeyValueCache, widen_weights

STEPS = 7


def build(dropout: float = 0.0, max_tokens: int = 2 * STEPS) -> CausalTransformer:
    model = CausalTransformer(16, 3, 4, max_tokens, dropout, dropout, dropout)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the small initial weights, where anything looks equal
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(batch: int = 5, count: int = 2 * STEPS) -> torch.Tensor:
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(1))


def empty(model: CausalTransformer, batch: int = 5) -> KeyValueCache:
    return model.initial_cache(batch, "cpu", torch.float32)


def walk(model: CausalTransformer, cache: KeyValueCache, x: torch.Tensor, chunk: int) -> torch.Tensor:
    outputs = []
    for piece in x.split(chunk, dim=1):
        cache, output = model.step(cache, piece)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_cached_steps_equal_the_full_forward(chunk: int) -> None:
    model, x = build(), tokens()
    torch.testing.assert_close(
        walk(model, empty(model), x, chunk), model(x)[:, chunk - 1 :: chunk], atol=1e-5, rtol=1e-5
    )


def test_cached_steps_use_no_dropout_in_either_mode() -> None:
    model, x = build(dropout=0.5), tokens()
    expected = model(x)[:, 1::2]
    model.train()
    torch.testing.assert_close(walk(model, empty(model), x, 2), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(x)[:, 1::2], expected, atol=1e-2)


def test_reading_some_tokens_equals_reading_all() -> None:
    model, x = build(), tokens()
    torch.testing.assert_close(model(x, read=slice(1, None, 2)), model(x)[:, 1::2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changed", [1, 6, 13])
def test_a_later_token_never_changes_an_earlier_output(changed: int) -> None:
    model, x = build(), tokens()
    before = model(x)
    x[:, changed] *= -1
    after = model(x)
    torch.testing.assert_close(after[:, :changed], before[:, :changed], atol=0, rtol=0)
    assert bool(((after - before)[:, changed:].abs().amax(dim=(0, 2)) > 1e-4).all())


def test_branches_of_a_cache_do_not_see_each_other() -> None:
    model, x = build(), tokens()
    trunk, _ = model.step(empty(model), x[:, :4])
    other = x.flip(1)
    left, _ = model.step(trunk, x[:, 4:6])
    right, _ = model.step(trunk, other[:, 4:6])
    _, left_output = model.step(left, x[:, 6:8])
    _, right_output = model.step(right, other[:, 6:8])
    mixed = torch.cat([x[:, :4], other[:, 4:8]], dim=1)
    torch.testing.assert_close(left_output, model(x[:, :8])[:, -1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(right_output, model(mixed)[:, -1], atol=1e-5, rtol=1e-5)


def test_rows_of_a_cache_can_be_taken_and_stepped_alone() -> None:
    model, x = build(), tokens()
    cache, _ = model.step(empty(model), x[:, :4])
    part, part_output = model.step(cache[:2], -x[:2, 4:6])
    _, whole_output = model.step(cache, x[:, 4:6])
    _, next_output = model.step(part, -x[:2, 6:8])
    expected = model(torch.cat([x[:2, :4], -x[:2, 4:8]], dim=1))
    torch.testing.assert_close(part_output, expected[:, 5], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(next_output, expected[:, 7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole_output, model(x)[:, 5], atol=1e-5, rtol=1e-5)


def test_a_straight_rollout_writes_into_one_storage() -> None:
    model, x = build(), tokens()
    first, _ = model.step(empty(model), x[:, :2])
    second, _ = model.step(first, x[:, 2:4])
    assert second.key_value.data_ptr() == first.key_value.data_ptr()
    assert (first.length, second.length) == (2, 4)


def test_a_full_cache_and_heads_that_do_not_divide_are_refused() -> None:
    model = build(max_tokens=4)
    cache, _ = model.step(empty(model), tokens()[:, :4])
    with pytest.raises(ValueError, match="4 tokens and 1 more do not fit a cache of 4"):
        model.step(cache, tokens()[:, :1])
    with pytest.raises(ValueError, match="3 attention heads cannot share 16 channels"):
        CausalTransformer(16, 1, 3, 4, 0.0, 0.0, 0.0)


def test_wide_weights_keep_the_size_of_what_they_are_given() -> None:
    model = CausalTransformer(16, 3, 4, 14, 0.0, 0.0, 0.0)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    widen_weights(model)
    for name, parameter in model.named_parameters():
        if name == "position":
            expected = 0.3
        elif parameter.ndim == 2:
            expected = parameter.shape[1] ** -0.5
        else:  # biases and norms
            torch.testing.assert_close(parameter, before[name], atol=0, rtol=0)
            continue
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.25), name
