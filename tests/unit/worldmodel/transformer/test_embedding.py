"""Embeddings are sums of what the token or action is, whose it is, and which place it has."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.transformer.embedding import ActionEmbeddingKind, TokenEmbedding, TokenEmbeddingKind

CODEBOOK = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -0.5]])


def build(token: TokenEmbeddingKind = "table", action: ActionEmbeddingKind = "linear", bins: int = 4) -> TokenEmbedding:
    torch.manual_seed(0)
    return TokenEmbedding(CODEBOOK, 2, 3, 2, 5, token, action, bins)


def tokens() -> Tensor:
    return torch.randint(3, (4, 2, 3), generator=torch.Generator().manual_seed(1))


def test_tokens_by_table_and_by_code() -> None:
    for kind in ("table", "code"):
        model = build(kind)
        x = model.tokens(tokens())
        for row in range(4):
            for agent in range(2):
                for place in range(3):
                    token = tokens()[row, agent, place]
                    itself = model.token[token] if kind == "table" else CODEBOOK[token] @ model.token[place]
                    expected = itself + model.agent[agent] + model.place[place]
                    torch.testing.assert_close(x[row, agent, place], expected)


def test_one_token_is_embedded_as_among_the_others() -> None:
    for kind in ("table", "code"):
        model = build(kind)
        for place in range(3):
            torch.testing.assert_close(
                model.one_token(tokens()[..., place], place), model.tokens(tokens())[:, :, place]
            )


def test_actions_enter_linearly() -> None:
    model = build()
    action = torch.rand(4, 2, 2)
    base = model.actions(0 * action)
    torch.testing.assert_close(model.actions(action) - base, action @ model.action)
    torch.testing.assert_close(base, (model.agent + model.place[-1]).expand(4, 2, 5))


def test_actions_enter_by_bins() -> None:
    model = build(action="bins")
    action = torch.tensor([[[-1.0, 1.0], [-0.51, -0.49]]])  # bins of width 0.5
    x = model.actions(action) - model.agent - model.place[-1]
    torch.testing.assert_close(x[0, 0], model.action[0] + model.action[4 + 3])
    torch.testing.assert_close(x[0, 1], model.action[0] + model.action[4 + 1])
