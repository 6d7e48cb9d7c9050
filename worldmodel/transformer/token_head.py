"""The distribution of the next token: how likely each is, and drawing one with all chance from one generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldmodel.causal_transformer import initialize_weights
from worldmodel.networks import mlp


class TokenHead(nn.Module):
    """Reads a distribution over tokens 0..V-1 off the transformer's output [*,D].

    A token is written as digits in a mixed radix, the first counting fastest, and the digits are independent given the
    output. One digit of size V is a distribution over the whole vocabulary (MARIE). With a quantiser's levels as sizes
    the digits are its channels: far fewer outputs, and what is learned of a channel holds for all tokens that share it.

    Args:
        dim: D.
        num_layers: linear layers.
        sizes: of the digits; their product is V.
    """

    sizes: Tensor
    basis: Tensor
    missing: Tensor

    def __init__(self, dim: int, num_layers: int, sizes: Sequence[int]) -> None:
        super().__init__()
        radix = torch.tensor(list(sizes))
        self.register_buffer("sizes", radix, persistent=False)
        basis = [math.prod(sizes[:digit]) for digit in range(len(sizes))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        self.register_buffer("missing", torch.arange(max(sizes)) >= radix[:, None], persistent=False)
        self.network = mlp([*[dim] * num_layers, self.missing.numel()])
        self.network.apply(initialize_weights)

    def logits(self, hidden: Tensor) -> Tensor:
        """[*,C,M] for outputs [*,D]: C digits, the largest of size M; minus infinity where a digit has fewer values."""
        return self.network(hidden).unflatten(-1, self.missing.shape).masked_fill(self.missing, -torch.inf)

    def digits(self, tokens: Tensor) -> Tensor:
        """[*,C] of tokens [*]."""
        return tokens[..., None] // self.basis % self.sizes

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Negative log-likelihood [*] of tokens [*] under `logits` [*,C,M], in nats."""
        chosen = logits.log_softmax(dim=-1).gather(-1, self.digits(tokens)[..., None])
        return -chosen[..., 0].sum(dim=-1)

    def most_probable(self, logits: Tensor) -> Tensor:
        """The most probable tokens [*] under `logits` [*,C,M]."""
        return (logits.argmax(dim=-1) * self.basis).sum(dim=-1)

    def draw(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Tokens [*] drawn from softmax(logits / temperature), `logits` [*,C,M].

        Inverts the cumulative distribution at one uniform number a digit, taken from `generator`; a temperature of 0
        takes none and gives the most probable token.
        """
        if temperature == 0:
            return self.most_probable(logits)
        cumulative = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
        uniform = torch.rand(cumulative[..., :1].shape, generator=generator, device=logits.device)
        # Rounding may leave the last sum beside 1, so it is the measure.
        digit = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True)[..., 0]
        return (torch.minimum(digit, self.sizes - 1) * self.basis).sum(dim=-1)
