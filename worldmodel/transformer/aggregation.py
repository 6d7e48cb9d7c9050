"""A Perceiver that sums up, for every agent, what all agents see and do at one step."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.causal_transformer import INIT_STD, initialize_weights


class Attention(nn.Module):
    """Pre-norm multi-head attention of queries [B,Q,D] to a context [B,M,D], without the residual connection."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_norm = nn.LayerNorm(dim)
        self.context_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, num_heads * head_dim)
        self.key_value = nn.Linear(dim, 2 * num_heads * head_dim)
        self.out = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor, context: Tensor, dropout: float = 0.0) -> Tensor:
        """[B,Q,D]; x may have one row for all of the context's. `dropout` is that of the attention weights."""
        query = self.query(self.query_norm(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        packed = self.key_value(self.context_norm(context)).unflatten(-1, (2, self.num_heads, -1))
        key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # [B, M, 2, heads, E] -> 2 x [B, heads, M, E]
        attended = functional.scaled_dot_product_attention(
            query.expand(key.shape[0], -1, -1, -1), key, value, dropout_p=dropout
        )
        return self.out(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Pre-norm feed-forward layer with a hidden width of 4 D, without the residual connection."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class AgentAggregation(nn.Module):
    """All agents' embedded tokens at one step, [*,N,M,D], to one summary token an agent, [*,N,D].

    After MARIE (arXiv 2406.15836) and the Perceiver (arXiv 2103.03206): N learned queries attend to the joint set of
    N*M embeddings, then `num_layers` times to each other. This is the only way in which the dynamics of one agent learn
    of the others.

    Args:
        num_agents: N.
        dim: D.
        num_layers: layers of attention among the queries.
        num_heads: heads of every attention.
        head_dim: width of a head.
        dropout: of attention weights and of what feed-forward layers add.
    """

    def __init__(
        self, num_agents: int, dim: int, num_layers: int, num_heads: int, head_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.queries = nn.Parameter(torch.empty(num_agents, dim).normal_(std=INIT_STD))
        self.cross = Attention(dim, num_heads, head_dim)
        self.cross_feed = FeedForward(dim)
        self.attend = nn.ModuleList(Attention(dim, num_heads, head_dim) for _ in range(num_layers))
        self.feed = nn.ModuleList(FeedForward(dim) for _ in range(num_layers))
        self.apply(initialize_weights)

    def forward(self, tokens: Tensor, *, drop: bool = False) -> Tensor:
        """[*,N,M,D] -> [*,N,D]; `drop`: with dropout, which draws from torch's global generator."""
        leading, rate = tokens.shape[:-3], self.dropout if drop else 0.0
        context = tokens.flatten(0, -4).flatten(1, 2) if leading else tokens.flatten(0, 1)[None]
        x = self.queries + self.cross(self.queries[None], context, rate)
        x = x + functional.dropout(self.cross_feed(x), rate)
        for attend, feed in zip(self.attend, self.feed, strict=True):
            x = x + cast(Attention, attend)(x, x, rate)
            x = x + functional.dropout(cast(FeedForward, feed)(x), rate)
        return x.unflatten(0, leading) if leading else x[0]
