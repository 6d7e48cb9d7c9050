"""Attention between agents against PyTorch's own encoder, and what an agent hears of the others."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from worldmodel.rssm.attention import AgentAttention, AttentionLayer, dropout

DIM, HEADS, LAYERS = 8, 2, 2


def build(*, communication: bool = True, probability: float = 0.0) -> AgentAttention:
    torch.manual_seed(0)
    return AgentAttention(DIM, LAYERS, HEADS, probability, communication=communication)


def draw_tokens(batch: int = 4, agents: int = 3) -> Tensor:
    return torch.randn(batch, agents, DIM, generator=torch.Generator().manual_seed(1))


def pytorch_encoder(attention: AgentAttention) -> nn.TransformerEncoder:
    """What MAMBA's code uses, with the weights of `attention`."""
    layer = nn.TransformerEncoderLayer(DIM, HEADS, dim_feedforward=DIM, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    for theirs, ours in zip(encoder.layers, attention.layers, strict=True):
        theirs, ours = cast("nn.TransformerEncoderLayer", theirs), cast("AttentionLayer", ours)
        theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias = ours.query_key_value.parameters()
        theirs.self_attn.out_proj.load_state_dict(ours.projection.state_dict())
        theirs.linear1.load_state_dict(ours.hidden.state_dict())
        theirs.linear2.load_state_dict(ours.output.state_dict())
        theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
        theirs.norm2.load_state_dict(ours.mlp_norm.state_dict())
    return encoder


def test_it_is_pytorchs_encoder() -> None:
    attention, tokens = build(), draw_tokens()

    torch.testing.assert_close(attention(tokens), pytorch_encoder(attention)(tokens), atol=1e-5, rtol=1e-5)


def test_without_communication_every_agent_is_a_team_of_one() -> None:
    alone, together, tokens = build(communication=False), build(), draw_tokens()
    changed = tokens.clone()
    changed[:, 1] += 1

    singly = torch.cat([together(tokens[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(alone(tokens), singly)
    assert torch.equal(alone(tokens)[:, [0, 2]], alone(changed)[:, [0, 2]])
    assert not torch.allclose(together(tokens)[:, [0, 2]], together(changed)[:, [0, 2]])


def test_no_layers_pass_tokens_on() -> None:
    tokens = draw_tokens()
    assert torch.equal(AgentAttention(DIM, 0, HEADS, 0.0, communication=True)(tokens), tokens)


def test_dropout_follows_the_generator_and_nothing_else() -> None:
    attention, tokens = build(probability=0.5), draw_tokens()
    before = torch.get_rng_state()

    one, again, other = (attention(tokens, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))

    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(attention(tokens), build()(tokens)), "without a generator nothing is dropped"


@pytest.mark.parametrize("probability", [0.1, 0.6])
def test_dropout_keeps_the_mean(probability: float) -> None:
    dropped = dropout(torch.ones(100_000), probability, torch.Generator().manual_seed(0))

    assert (dropped == 0).float().mean() == pytest.approx(probability, abs=0.01)
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
