"""Joint actions as single vectors: what the reward and termination model reads of a joint action."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dima.attention import GatedFeedForward, SelfAttention


class AttentionActionEncoder(nn.Module):
    """Agent tokens, attention layers over the agents, mean, LayerNorm, Linear: [*,N,A] -> [*,D].

    A token is an MLP of the agent's action plus a learned embedding of who acts. Source: the authors' published code,
    with 3 layers of 8 heads x 32 and no dropout.
    """

    def __init__(
        self, num_agents: int, action_dim: int, dim: int, num_layers: int, num_heads: int, head_dim: int
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(action_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.agent = nn.Parameter(torch.empty(num_agents, dim).normal_(std=0.02))
        self.attend = nn.ModuleList(SelfAttention(dim, num_heads, head_dim) for _ in range(num_layers))
        self.feed = nn.ModuleList(GatedFeedForward(dim) for _ in range(num_layers))
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))

    def forward(self, action: Tensor) -> Tensor:
        """Embeddings [*,D] of joint actions [*,N,A]."""
        x = (self.embed(action) + self.agent).flatten(0, -3)  # [*, N, D] -> [B, N, D]
        last = len(self.feed) - 1
        for layer, (attend, feed) in enumerate(zip(self.attend, self.feed, strict=True)):
            x = x + attend(x)
            x = x + feed(x) if layer < last else cast(GatedFeedForward, feed).mean(x)
        return self.out(x).unflatten(0, action.shape[:-2])


class LinearActionEncoder(nn.Module):
    """One linear map of the joint action, [*,N,A] -> [*,D]: each agent has its own columns."""

    def __init__(self, num_agents: int, action_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_agents * action_dim, dim)

    def forward(self, action: Tensor) -> Tensor:
        """Embeddings [*,D] of joint actions [*,N,A]."""
        return self.linear(action.flatten(-2))
