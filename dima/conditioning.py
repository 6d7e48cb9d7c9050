"""Embedding the joint action when only some agents' current actions may be seen.

`small` is the default: one linear layer an agent, a masked sum over agents, and a small MLP. `perceiver` is the
encoder of the authors' published code, for parity; it holds 84 % of that model's weights. In both a hidden agent's
action cannot change the output by a single bit, agents are told apart by their own parameters, and the actions of
the past steps are always visible. Cost is linear in the number of agents.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.attention import GatedFeedForward, SelfAttention

ActionEncoderKind = Literal["small", "perceiver"]


class ActionEncoder(nn.Module):
    """Past and current actions to a condition vector, in two stages.

    `tokens` does what does not depend on the mask, once an imagined step; `pool` what does, once for every mask.
    """

    @abstractmethod
    def tokens(self, past: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Embed `past` [B,K,N,A] and `action` [B,N,A]; returns (what is always visible, [B,N,D] by agent)."""

    @abstractmethod
    def pool(self, tokens: tuple[Tensor, Tensor], visible: Tensor) -> Tensor:
        """Condition vectors [J,B,D] for J masks: `visible` bool is [J,B,N], or [J,1,N] where all rows share it."""


def build_action_encoder(
    kind: ActionEncoderKind, num_agents: int, action_dim: int, past_steps: int, cond_dim: int
) -> ActionEncoder:
    """Make the encoder named `kind`."""
    encoder = SmallActionEncoder if kind == "small" else PerceiverActionEncoder
    return encoder(num_agents, action_dim, past_steps, cond_dim)


class SmallActionEncoder(ActionEncoder):
    """Masked sum of one token an agent, each from the agent's own linear layer, then a two-layer MLP."""

    def __init__(self, num_agents: int, action_dim: int, past_steps: int, cond_dim: int) -> None:
        """Each agent has its own weights and bias, so a token tells who acted as well as how."""
        super().__init__()
        bound = (action_dim + 1) ** -0.5
        self.agent_weight = nn.Parameter(torch.empty(num_agents, action_dim, cond_dim).uniform_(-bound, bound))
        self.agent_bias = nn.Parameter(torch.empty(num_agents, cond_dim).uniform_(-bound, bound))
        self.past = nn.Linear(max(past_steps * num_agents * action_dim, 1), cond_dim)
        self.hidden = nn.Linear(cond_dim, cond_dim)
        self.out = nn.Linear(cond_dim, cond_dim)

    def tokens(self, past: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `ActionEncoder.tokens`."""
        by_agent = torch.einsum("bna,nad->bnd", action, self.agent_weight) + self.agent_bias
        flat = past.flatten(1)
        if flat.shape[1] == 0:
            flat = flat.new_zeros(flat.shape[0], 1)
        return self.past(flat), by_agent

    def pool(self, tokens: tuple[Tensor, Tensor], visible: Tensor) -> Tensor:
        """See `ActionEncoder.pool`."""
        past, by_agent = tokens
        mask = visible.to(by_agent.dtype).expand(-1, by_agent.shape[0], -1)
        shown = torch.einsum("jbn,bnd->jbd", mask, by_agent)
        h = functional.silu(past + shown)
        return self.out(functional.silu(self.hidden(h)))


class PerceiverActionEncoder(ActionEncoder):
    """The published encoder: 32 latents read the visible action tokens once, then attend to each other twice.

    11.87 M parameters at two agents of three actions. Hidden tokens are removed inside the softmax.
    """

    _LATENTS, _LATENT_DIM, _HEAD_DIM, _SELF_LAYERS = 32, 512, 64, 2

    def __init__(self, num_agents: int, action_dim: int, past_steps: int, cond_dim: int) -> None:
        """Layer sizes as in the authors' published code."""
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(action_dim, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim))
        self.agent = nn.Parameter(torch.randn(num_agents, cond_dim))
        self.slot = nn.Parameter(torch.randn(past_steps + 1, cond_dim))
        width = self._LATENT_DIM
        self.latents = nn.Parameter(torch.randn(self._LATENTS, width))
        self.read = _CrossAttention(width, cond_dim, self._HEAD_DIM)
        self.read_feed = GatedFeedForward(width)
        self.attend = nn.ModuleList(SelfAttention(width, 8, self._HEAD_DIM) for _ in range(self._SELF_LAYERS))
        self.feed = nn.ModuleList(GatedFeedForward(width) for _ in range(self._SELF_LAYERS))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, cond_dim))

    def tokens(self, past: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `ActionEncoder.tokens`."""
        steps = torch.cat([past, action[:, None]], dim=1)
        embedded = self.embed(steps) + self.agent + self.slot[:, None]
        return embedded[:, :-1].flatten(1, 2), embedded[:, -1]

    def pool(self, tokens: tuple[Tensor, Tensor], visible: Tensor) -> Tensor:
        """See `ActionEncoder.pool`."""
        past, by_agent = tokens
        levels, batch = visible.shape[0], by_agent.shape[0]
        context = torch.cat([past, by_agent], dim=1)
        context = context.expand(levels, *context.shape).flatten(0, 1)
        shown = visible.expand(-1, batch, -1).flatten(0, 1)
        shown = torch.cat([shown.new_ones(shown.shape[0], past.shape[1]), shown], dim=1)
        x = self.latents.expand(context.shape[0], -1, -1)
        x = x + self.read(x, context, shown[:, None])
        x = x + self.read_feed(x)
        last = len(self.feed) - 1
        for layer, (attend, feed) in enumerate(zip(self.attend, self.feed, strict=True)):
            x = x + attend(x)
            x = x + feed(x) if layer < last else cast(GatedFeedForward, feed).mean(x)
        return self.out(x).unflatten(0, (levels, batch))


class _CrossAttention(nn.Module):
    """Pre-norm attention with one head from [B,Q,D] to a context [B,L,E], without the residual."""

    def __init__(self, dim: int, context_dim: int, head_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim)
        self.query = nn.Linear(dim, head_dim)
        self.key_value = nn.Linear(context_dim, 2 * head_dim)
        self.out = nn.Linear(head_dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Attend where bool `mask` [B,1,L] is true."""
        key, value = self.key_value(self.norm_context(context)).chunk(2, dim=-1)
        query = self.query(self.norm(x))
        return self.out(functional.scaled_dot_product_attention(query, key, value, attn_mask=mask))
