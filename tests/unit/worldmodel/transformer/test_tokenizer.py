"""Tokens are what finite scalar quantisation says, belong to one agent, and are learned from real data."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.support.transformer_models import UNEQUAL, lively_transformer, transformer_config
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_segment
from worldmodel.transformer.tokenizer import ObservationTokenizer

GENERATOR = torch.Generator()


def tokenizer_of(*overrides: str) -> ObservationTokenizer:
    return lively_transformer(*overrides).tokenizer


def observations(batch: int = 40) -> Tensor:
    """Standardised z [B,3,4] as the layout makes them."""
    return torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(3)) * UNEQUAL.obs_mask()[:, :4]


def test_tokens_number_the_nearest_levels() -> None:
    tokenizer, z = tokenizer_of(), observations()
    x = tokenizer.encoder(torch.cat([z, torch.eye(3).expand(40, 3, 3)], dim=-1)).unflatten(-1, (3, 3))
    number, basis = torch.zeros(40, 3, 3), 1
    for channel, levels in enumerate((8, 6, 5)):
        half, offset = (levels - 1) * (1 + 1e-3) / 2, 0.5 if levels % 2 == 0 else 0.0
        shift = torch.atanh(torch.tensor(offset / half))
        level = (torch.tanh(x[..., channel] + shift) * half - offset).round() + levels // 2
        assert level.min() >= 0
        assert level.max() < levels
        number, basis = number + basis * level, basis * levels
    tokens = tokenizer.encode(z)
    assert torch.equal(tokens, number.long())
    assert len(tokens.unique()) > 10


def test_a_token_stands_for_the_code_it_was_made_from() -> None:
    tokenizer, z = tokenizer_of(), observations()
    codes, tokens = tokenizer._quantize(z)
    torch.testing.assert_close(tokenizer.codes(tokens), codes.detach(), atol=1e-6, rtol=0)
    assert not tokenizer.decode(tokens)[:, ~UNEQUAL.obs_mask()[:, :4]].any()


def test_an_agent_s_tokens_are_its_own_affair() -> None:
    tokenizer, z = tokenizer_of(), observations()
    changed = z.clone()
    changed[:, 1] *= -1
    before, after = tokenizer.encode(z), tokenizer.encode(changed)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_padding_counts_for_nothing() -> None:
    """A batch with invalid steps has the loss of its real observations, each counted once."""
    tokenizer = tokenizer_of()
    valid = torch.tensor([[False], [True], [True], [False]])
    segment = random_segment(UNEQUAL, 4, 1, torch.Generator().manual_seed(4), valid)
    output = tokenizer(segment, GENERATOR)
    z = tokenizer._layout[0].normalized_rows(segment.obs)[segment.state_valid()]
    tokens = tokenizer.encode(z)
    error = (tokenizer.decode(tokens) - z).abs()[:, UNEQUAL.obs_mask()[:, :4]]
    torch.testing.assert_close(output.loss, error.mean(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        output.metrics["tokenizer_active"], torch.tensor(len(set(tokens.flatten().tolist())) / 240)
    )
    nonsense = dataclasses.replace(
        segment, obs=torch.where(segment.state_valid()[:, :, None, None], segment.obs, torch.full((), 1e6))
    )
    assert torch.equal(tokenizer(nonsense, GENERATOR).loss, output.loss)


def test_it_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    model = transformer_config("tokenizer.hidden_dim=64").build(UNEQUAL)
    optimizer = torch.optim.AdamW(model.tokenizer.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(5)
    for _ in range(300):
        optimizer.zero_grad()
        model.tokenizer(random_segment(UNEQUAL, 64, 1, generator), GENERATOR).loss.backward()
        optimizer.step()
    error = model.tokenizer(random_segment(UNEQUAL, 200, 1, generator), GENERATOR).metrics["tokenizer_error"]
    assert error < 0.35, "always saying the mean would err by 0.8"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenizer.levels=[8,2]", "one number of at least 3 a channel"),
        ("tokenizer.levels=[]", "one number of at least 3 a channel"),
        ("tokenizer.num_layers=1", "at least 2"),
        ("tokenizer.num_tokens=0", "at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as raised:
        transformer_config(override)
    assert isinstance(raised.value.__cause__ or raised.value, ConfigError)
