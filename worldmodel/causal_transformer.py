"""A causal transformer after minGPT, and its key-value cache for imagination.

Works on embedded tokens [B,T,D]; what the tokens mean is the business of whoever embeds them. Training runs
`forward` over whole windows, imagination runs `step` over the newest tokens only; both give the same numbers.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.types import TensorStruct

INIT_STD = 0.02
"""Standard deviation of the initial weights, as in GPT-2 and minGPT."""

WIDE_EMBEDDING_STD = 0.3
"""Standard deviation of embeddings once `widen_weights` has scaled them."""


class CacheTip:
    """How far the storage of a cache has been written; shared by every `KeyValueCache` that may share storage."""

    def __init__(self) -> None:
        self.length = 0


@dataclasses.dataclass(frozen=True)
class KeyValueCache(TensorStruct):
    """Keys and values of the tokens that `CausalTransformer.step` has seen, batch first so that rows can be indexed.

    Only the first `length` tokens are meaningful. Appending writes into the storage behind them, which leaves every
    older cache as it was; stepping an older cache again finds `tip` ahead of it and copies, so that branches never
    see each other. One straight rollout therefore never copies.
    """

    key_value: Tensor
    """[B, layers, 2, heads, max_tokens, head_dim]."""
    length: int
    """Tokens seen."""
    tip: CacheTip

    def appendable(self) -> KeyValueCache:
        """Self, or a copy if somebody else has already written behind `length`."""
        if self.tip.length == self.length:
            return self
        copy = KeyValueCache(self.key_value.clone(), self.length, CacheTip())
        copy.tip.length = self.length
        return copy

    def advanced(self, num_tokens: int) -> KeyValueCache:
        """The cache after `num_tokens` more tokens have been written into it."""
        self.tip.length = self.length + num_tokens
        return KeyValueCache(self.key_value, self.length + num_tokens, self.tip)


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)) with a hidden width of 4 D."""

    def __init__(self, dim: int, num_heads: int, attention_dropout: float, residual_dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.residual_dropout = nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, mask: Tensor, read: slice) -> Tensor:
        """Process whole sequences [B,T,D] and return the tokens in `read`.

        Args:
            x: the tokens.
            mask: [T,T] causal, added to the attention scores.
            read: the tokens whose output is wanted; all of them are attended to.
        """
        query, key, value = self._heads(x).unbind(1)
        x = x[:, read]
        attended = functional.scaled_dot_product_attention(
            query[:, :, read],
            key,
            value,
            attn_mask=mask[read],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        x = x + self.residual_dropout(self.projection(_merge_heads(attended)))
        return x + self.residual_dropout(self.mlp(self.mlp_norm(x)))

    def step(self, x: Tensor, past: Tensor, position: int, mask: Tensor, num_outputs: int) -> Tensor:
        """Process the newest tokens x [B,n,D] against `past`, without dropout; return the last `num_outputs` of them.

        Args:
            x: the newest tokens.
            past: [B,2,heads,max_tokens,head_dim], this layer's part of the cache; the keys and values of x are
                written into it at `position`.
            position: tokens already in the cache.
            mask: [num_outputs, position + n], added to the attention scores.
            num_outputs: how many of the newest tokens are needed by the layers above.
        """
        heads = self._heads(x)
        stop = position + x.shape[1]
        past[:, :, :, position:stop] = heads[:, 1:]
        key, value = past[:, :, :, :stop].unbind(1)
        query = heads[:, 0, :, -num_outputs:]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x[:, -num_outputs:] + self.projection(_merge_heads(attended))
        return x + self.mlp(self.mlp_norm(x))

    def _heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values of the tokens."""
        batch, tokens, dim = x.shape
        packed = self.query_key_value(self.attention_norm(x))
        # [B, T, 3*D] -> [B, 3, heads, T, head_dim]
        return packed.view(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(0, 2, 3, 1, 4)


class CausalTransformer(nn.Module):
    """Learned positions, dropout, `num_layers` causal blocks and a last LayerNorm: [B,T,D] -> [B,T,D].

    Dropout draws from torch's global generator (torch offers no other way), and only `forward` in training mode
    uses it.

    Args:
        dim: D.
        num_layers: transformer blocks.
        num_heads: attention heads; divides `dim`.
        max_tokens: the longest sequence, and the size of the cache.
        embedding_dropout: of the embedded tokens.
        attention_dropout: of the attention weights.
        residual_dropout: of what each block adds.

    Raises:
        ValueError: when `num_heads` does not divide `dim`.
    """

    causal_mask: Tensor

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        max_tokens: int,
        embedding_dropout: float,
        attention_dropout: float,
        residual_dropout: float,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} attention heads cannot share {dim} channels: num_heads must divide dim")
        self.max_tokens = max_tokens
        self.head_dim = dim // num_heads
        self.num_heads = num_heads
        self.position = nn.Parameter(torch.empty(max_tokens, dim).normal_(std=INIT_STD))
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        blocks = [TransformerBlock(dim, num_heads, attention_dropout, residual_dropout) for _ in range(num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = nn.LayerNorm(dim)
        self.register_buffer("causal_mask", torch.full((max_tokens, max_tokens), -torch.inf).triu(1), persistent=False)
        self.apply(initialize_weights)

    def forward(self, tokens: Tensor, read: slice = slice(None)) -> Tensor:
        """Outputs at the tokens in `read` of embedded tokens [B,T,D], T at most `max_tokens`.

        Output t depends on tokens 0..t only. The last block works on the tokens in `read` alone: the others' outputs
        would go nowhere.
        """
        x = self.embedding_dropout(tokens + self.position[: tokens.shape[1]])
        mask = self.causal_mask[: tokens.shape[1], : tokens.shape[1]].to(x.dtype)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, read if layer == last else slice(None))
        return self.final_norm(x)

    def initial_cache(self, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> KeyValueCache:
        """An empty cache for `batch_size` sequences."""
        shape = (batch_size, len(self.blocks), 2, self.num_heads, self.max_tokens, self.head_dim)
        return KeyValueCache(torch.zeros(shape, device=device, dtype=dtype), 0, CacheTip())

    @torch.no_grad()
    def step(self, cache: KeyValueCache, tokens: Tensor) -> tuple[KeyValueCache, Tensor]:
        """Append embedded tokens [B,n,D] to `cache`; return the new cache and the last token's output [B,D].

        Equals the last row of `forward` on the whole sequence in evaluation mode. No dropout in either mode, no
        gradient.

        Raises:
            ValueError: when the cache has no room for n tokens.
        """
        cache = cache.appendable()
        position, stop = cache.length, cache.length + tokens.shape[1]
        if stop > self.max_tokens:
            raise ValueError(f"{position} tokens and {tokens.shape[1]} more do not fit a cache of {self.max_tokens}")
        x = tokens + self.position[position:stop]
        for layer, block in enumerate(self.blocks):
            # The outputs of the last block are read at the last token only; the others leave just keys and values.
            num_outputs = 1 if layer == len(self.blocks) - 1 else tokens.shape[1]
            mask = self.causal_mask[stop - num_outputs : stop, :stop].to(x.dtype)
            x = cast(TransformerBlock, block).step(x, cache.key_value[:, layer], position, mask, num_outputs)
        return cache.advanced(tokens.shape[1]), self.final_norm(x[:, -1])


def initialize_weights(module: nn.Module) -> None:
    """Draw linear weights from N(0, 0.02^2) and zero their biases: GPT-2's rule, without its scaling by depth."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def widen_weights(module: nn.Module) -> None:
    """Scale weights drawn by GPT-2's rule to N(0, 1 / fan-in), and embeddings to N(0, 0.3^2).

    0.02 fits a width of hundreds; a narrow transformer begins with attention that is all but uniform and outputs that
    are all but zero, and loses its first thousand updates to growing out of that.
    """
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if isinstance(part, nn.Linear) and parameter is part.weight:
                parameter.mul_(part.in_features**-0.5 / INIT_STD)
            elif parameter.ndim >= 2:
                parameter.mul_(WIDE_EMBEDDING_STD / INIT_STD)


def _merge_heads(x: Tensor) -> Tensor:
    # [B, heads, T, head_dim] -> [B, T, D]
    return x.transpose(1, 2).flatten(2)
