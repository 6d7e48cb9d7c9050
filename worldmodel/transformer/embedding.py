"""Tokens and actions of agents as vectors: what the transformer and the aggregation read."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from worldmodel.causal_transformer import INIT_STD

TokenEmbeddingKind = Literal["table", "code"]
ActionEmbeddingKind = Literal["linear", "bins"]


class TokenEmbedding(nn.Module):
    """Embeds observation tokens and actions; who it is about and which place it has are added to each.

    Args:
        codebook: [V,C] the channels that each token stands for.
        num_agents: N.
        num_tokens: L.
        action_dim: A.
        dim: D.
        token_kind: `table`: a learned vector for each of the V tokens, the same in every place (MARIE). `code`: a
            linear map of a token's channels, one for every place, so that similar tokens begin with similar vectors.
        action_kind: `linear`: a linear map of the action vector. `bins`: the sum of learned vectors, one for each entry
            and the bin it falls into.
        num_bins: of [-1, 1], for `bins`.
    """

    codebook: Tensor
    first_bin: Tensor

    def __init__(
        self,
        codebook: Tensor,
        num_agents: int,
        num_tokens: int,
        action_dim: int,
        dim: int,
        token_kind: TokenEmbeddingKind,
        action_kind: ActionEmbeddingKind,
        num_bins: int,
    ) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.register_buffer("first_bin", num_bins * torch.arange(action_dim), persistent=False)
        num_codes, channels = codebook.shape
        self.by_code = token_kind == "code"
        if self.by_code:
            self.register_buffer("codebook", codebook, persistent=False)
            self.token = nn.Parameter(_draw(num_tokens, channels, dim))
        else:
            self.token = nn.Parameter(_draw(num_codes, dim))
        self.by_bin = action_kind == "bins"
        self.action = nn.Parameter(_draw(num_bins * action_dim if self.by_bin else action_dim, dim))
        self.agent = nn.Parameter(_draw(num_agents, dim))
        self.place = nn.Parameter(_draw(num_tokens + 1, dim))

    def tokens(self, tokens: Tensor) -> Tensor:
        """Embeddings [*,N,L,D] of an observation's tokens [*,N,L]."""
        x = torch.einsum("...lc,lcd->...ld", self.codebook[tokens], self.token) if self.by_code else self.token[tokens]
        return x + self.agent[:, None] + self.place[:-1]

    def one_token(self, token: Tensor, place: int) -> Tensor:
        """Embeddings [*,N,D] of the tokens [*,N] at one place of every agent's observation."""
        x = self.codebook[token] @ self.token[place] if self.by_code else self.token[token]
        return x + self.agent + self.place[place]

    def actions(self, action: Tensor) -> Tensor:
        """Embeddings [*,N,D] of the agents' actions [*,N,A] in [-1, 1]."""
        if self.by_bin:
            number = (0.5 * (action + 1) * self.num_bins).long().clamp(0, self.num_bins - 1)
            x = self.action[number + self.first_bin].sum(dim=-2)
        else:
            x = action @ self.action
        return x + self.agent + self.place[-1]


def _draw(*shape: int) -> Tensor:
    return torch.empty(*shape).normal_(std=INIT_STD)
