"""Attention between agents: what MAMBA's agents tell each other before each step.

A post-norm transformer encoder over the agents' tokens [B,N,D], as MAMBA's published code uses it. Dropout draws from
a generator that is handed in, so that a loss depends on nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dropout(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Drop entries of `x` with noise from `generator` and scale up the rest; without a generator `x` as it is."""
    if generator is None or probability == 0:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= probability
    return x * kept / (1 - probability)


class AttentionLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)); the hidden width is D, as in MAMBA's code.

    Args:
        dim: D.
        num_heads: attention heads; divides `dim`.
        dropout: of the attention weights, of the hidden units and of both residual branches, where PyTorch's encoder
            layer has it.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Tokens [B,N,D] to tokens [B,N,D]; dropout only with a generator."""
        attended = self.projection(self._attend(x, generator))
        x = self.attention_norm(x + dropout(attended, self.dropout, generator))
        hidden = dropout(self.hidden(x).relu(), self.dropout, generator)
        return self.mlp_norm(x + dropout(self.output(hidden), self.dropout, generator))

    def _attend(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        batch, agents, dim = x.shape
        packed = self.query_key_value(x).view(batch, agents, 3, self.num_heads, dim // self.num_heads)
        # [B, N, 3, heads, head_dim] -> three of [B, heads, N, head_dim]
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.mT * key.shape[-1] ** -0.5).softmax(dim=-1)
        attended = dropout(weights, self.dropout, generator) @ value
        return attended.transpose(1, 2).flatten(2)  # [B, heads, N, head_dim] -> [B, N, D]


class AgentAttention(nn.Module):
    """Layers of attention over the agents' tokens.

    Args:
        dim: D.
        num_layers: 0 passes the tokens on as they are.
        num_heads: attention heads; divides `dim`.
        dropout: see `AttentionLayer`.
        communication: False: each agent attends to its own token alone and learns nothing of the others.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, dropout: float, *, communication: bool) -> None:
        super().__init__()
        self.communication = communication
        self.layers = nn.ModuleList(AttentionLayer(dim, num_heads, dropout) for _ in range(num_layers))

    def forward(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Tokens [B,N,D] to tokens [B,N,D]; dropout only with a generator."""
        # Alone in its sequence an agent cannot see another, whatever the weights: [B, N, D] -> [B*N, 1, D].
        x = tokens if self.communication else tokens.flatten(0, 1)[:, None]
        for layer in self.layers:
            x = layer(x, generator)
        return x.view_as(tokens)
