"""The aggregation against attention written out in loops."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from worldmodel.transformer.aggregation import AgentAggregation, Attention

AGENTS, TOKENS, DIM, HEADS, HEAD_DIM = 3, 4, 8, 2, 5


def build(layers: int = 2) -> AgentAggregation:
    model = AgentAggregation(AGENTS, DIM, layers, HEADS, HEAD_DIM, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def tokens() -> Tensor:
    return torch.randn(6, AGENTS, TOKENS, DIM, generator=torch.Generator().manual_seed(1))


def attend_in_loops(attention: Attention, queries: Tensor, context: Tensor) -> Tensor:
    """[Q,D] and [M,D] of one row."""
    query = functional.linear(_norm(queries), attention.query.weight, attention.query.bias)
    key_value = functional.linear(
        _norm_context(attention, context), attention.key_value.weight, attention.key_value.bias
    )
    key, value = key_value[:, : HEADS * HEAD_DIM], key_value[:, HEADS * HEAD_DIM :]
    rows = []
    for q in query:
        heads = []
        for head in range(HEADS):
            part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            weights = torch.tensor([float(q[part] @ k[part]) / math.sqrt(HEAD_DIM) for k in key]).softmax(0)
            heads.append(sum(w * v[part] for w, v in zip(weights, value, strict=True)))
        rows.append(functional.linear(torch.cat(heads), attention.out.weight, attention.out.bias))
    return torch.stack(rows)


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, (DIM,))


def _norm_context(attention: Attention, x: Tensor) -> Tensor:
    return functional.layer_norm(x, (DIM,), attention.context_norm.weight, attention.context_norm.bias)


def neutral_norm(attention: Attention) -> Attention:
    """With a plain LayerNorm on the queries, so that the loops can leave its weights out."""
    with torch.no_grad():
        attention.query_norm.weight.fill_(1.0)
        attention.query_norm.bias.zero_()
    return attention


@torch.no_grad()
def test_attention_equals_loops() -> None:
    attention = neutral_norm(build().cross)
    x, context = torch.randn(6, AGENTS, DIM), tokens().flatten(1, 2)
    expected = torch.stack([attend_in_loops(attention, x[row], context[row]) for row in range(6)])
    torch.testing.assert_close(attention(x, context), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_queries_read_all_tokens_of_all_agents_and_then_each_other() -> None:
    model, x = build(layers=1), tokens()
    for attention in (model.cross, model.attend[0]):
        neutral_norm(attention)  # type: ignore[arg-type]
    for row in range(6):
        y = model.queries + attend_in_loops(model.cross, model.queries, x[row].flatten(0, 1))
        y = y + model.cross_feed(y)
        y = y + attend_in_loops(model.attend[0], y, y)  # type: ignore[arg-type]
        y = y + model.feed[0](y)
        torch.testing.assert_close(model(x)[row], y, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_every_agent_s_summary_depends_on_every_token() -> None:
    model, x = build(), tokens()
    before = model(x)
    for agent in range(AGENTS):
        for token in range(TOKENS):
            changed = x.clone()
            changed[:, agent, token] *= -1
            assert bool(((model(changed) - before).abs().amax(dim=(0, 2)) > 1e-4).all())


@torch.no_grad()
def test_leading_axes_may_be_many() -> None:
    model, x = build(), tokens()
    torch.testing.assert_close(model(x.unflatten(0, (2, 3))), model(x).unflatten(0, (2, 3)))
    torch.testing.assert_close(model(x[0]), model(x)[0])
