"""The reward and termination model one imagined step at a time: the twin of `RewardTerminationModel.step`.

A step here is two tokens for each of many rollouts. What it saves are the parts that pay for long sequences or unequal
masks: fused attention over a handful of tokens, permuted copies, and outputs that nobody reads.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.action_tokens import AttentionActionEncoder
from dima.attention import GatedFeedForward, SelfAttention
from dima.fast.convolution import packed
from dima.reward_termination import RewardTerminationModel
from worldmodel.causal_transformer import KeyValueCache, TransformerBlock

FEW_TOKENS = 6
"""Up to so many agents, attention among them is faster as plain products than in the fused kernel (measured)."""


class PackedLinear:
    """A linear layer with a copy of its weights, input-major: [*,K] -> [*,M]."""

    def __init__(self, linear: nn.Module, dtype: torch.dtype) -> None:
        assert isinstance(linear, nn.Linear)
        self.weight, self.bias = packed(linear.weight.t(), dtype), packed(linear.bias, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output for rows x [B,K]."""
        return torch.addmm(self.bias, x, self.weight)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the layer's output for rows x [B,K] to `total` [B,M] in place."""
        return total.addmm_(x, self.weight).add_(self.bias)


class _PackedNorm:
    """A layer norm with a copy of its weights."""

    def __init__(self, norm: nn.Module, dtype: torch.dtype) -> None:
        assert isinstance(norm, nn.LayerNorm)
        self.weight, self.bias = packed(norm.weight, dtype), packed(norm.bias, dtype)
        self.eps = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class _PackedSelfAttention:
    """`SelfAttention` among N agents' tokens, added in place."""

    def __init__(self, attention: SelfAttention, dtype: torch.dtype) -> None:
        self.num_heads = attention.num_heads
        self.norm = _PackedNorm(attention.norm, dtype)
        self.query_key_value = PackedLinear(attention.query_key_value, dtype)
        self.out = PackedLinear(attention.out, dtype)

    def add_to(self, x: Tensor, agents: int) -> None:
        """Let the tokens x [B*N,D] attend to those of their row."""
        joint = self.query_key_value(self.norm(x)).view(-1, agents, 3, self.num_heads, self.head_dim)
        query, key, value = joint.unbind(2)  # [B, N, heads, E] each
        attended = _few(query, key, value) if agents <= FEW_TOKENS else _many(query, key, value)
        self.out.add_to(x, attended.reshape(x.shape[0], -1))

    @property
    def head_dim(self) -> int:
        """E: the width of a head."""
        return self.query_key_value.weight.shape[1] // (3 * self.num_heads)


def _few(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention among few tokens [B,N,heads,E], written out."""
    scores = (query[:, :, None] * key[:, None]).sum(dim=-1, keepdim=True)  # [B, N, N, heads, 1]
    weights = (scores / math.sqrt(query.shape[-1])).softmax(dim=2)
    return (weights * value[:, None]).sum(dim=2)


def _many(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention among many tokens [B,N,heads,E]."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


class _PackedGatedFeedForward:
    """`GatedFeedForward`, added in place, or averaged over the agents."""

    def __init__(self, feed: GatedFeedForward, dtype: torch.dtype) -> None:
        self.norm = _PackedNorm(feed.norm, dtype)
        self.expand, self.out = PackedLinear(feed.expand, dtype), PackedLinear(feed.out, dtype)

    def hidden(self, x: Tensor) -> Tensor:
        """The gated hidden layer of x [B,D]: [B, 4*D]."""
        value, gate = self.expand(self.norm(x)).chunk(2, dim=-1)
        return functional.gelu(gate).mul_(value)


class _PackedActionEncoder:
    """`AttentionActionEncoder`: as that ends in a mean over agents, so does its last layer's hidden layer already."""

    def __init__(self, encoder: AttentionActionEncoder, dtype: torch.dtype) -> None:
        first, _, last = encoder.embed
        self.first, self.last = PackedLinear(first, dtype), PackedLinear(last, dtype)
        self.agent = encoder.agent.to(dtype, copy=True)
        self.attend = [_PackedSelfAttention(cast(SelfAttention, layer), dtype) for layer in encoder.attend]
        self.feed = [_PackedGatedFeedForward(cast(GatedFeedForward, layer), dtype) for layer in encoder.feed]
        norm, out = encoder.out
        self.norm, self.out = _PackedNorm(norm, dtype), PackedLinear(out, dtype)

    def __call__(self, action: Tensor) -> Tensor:
        """[B,N,A] -> [B,D]."""
        batch, agents, _ = action.shape
        rows = action.flatten(0, 1).to(self.agent.dtype)
        x = self.last(functional.silu(self.first(rows), inplace=True))
        x = x.view(batch, agents, -1).add_(self.agent).view(batch * agents, -1)
        last = len(self.feed) - 1
        for layer, (attend, feed) in enumerate(zip(self.attend, self.feed, strict=True)):
            attend.add_to(x, agents)
            hidden = feed.hidden(x)
            if layer < last:
                feed.out.add_to(x, hidden)
            else:
                x = feed.out.add_to(_mean(x, agents), _mean(hidden, agents))
        return self.out(self.norm(x))


def _mean(x: Tensor, agents: int) -> Tensor:
    """The mean over agents of [B*N,D]: [B,D]."""
    return x.view(-1, agents, x.shape[-1]).mean(dim=1)


class _PackedBlock:
    """`TransformerBlock.step` for two tokens a row, the second of which is read in the last layer."""

    def __init__(self, block: TransformerBlock, dtype: torch.dtype) -> None:
        self.num_heads = block.num_heads
        self.attention_norm, self.mlp_norm = (_PackedNorm(n, dtype) for n in (block.attention_norm, block.mlp_norm))
        self.query_key_value, self.projection = (
            PackedLinear(layer, dtype) for layer in (block.query_key_value, block.projection)
        )
        expand, _, out = block.mlp
        self.expand, self.out = PackedLinear(expand, dtype), PackedLinear(out, dtype)

    def __call__(self, x: Tensor, past: Tensor, position: int, mask: Tensor, num_outputs: int) -> Tensor:
        """Arguments as `TransformerBlock.step`, but x [B,n,D] may be overwritten."""
        batch, tokens, dim = x.shape
        joint = self.query_key_value(self.attention_norm(x).view(batch * tokens, dim))
        heads = joint.view(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(0, 2, 3, 1, 4)
        stop = position + tokens
        past[:, :, :, position:stop] = heads[:, 1:]
        key, value = past[:, :, :, :stop].unbind(1)
        query = heads[:, 0, :, -num_outputs:]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        rows = x[:, -num_outputs:].reshape(batch * num_outputs, dim)
        self.projection.add_to(rows, attended.transpose(1, 2).reshape(batch * num_outputs, dim))
        hidden = self.expand(self.mlp_norm(rows))
        self.out.add_to(rows, functional.gelu(hidden))
        return rows.view(batch, num_outputs, dim)


class PackedRewardTermination:
    """Keeps the part of `RewardTerminationModel` that imagination calls, with copies of the transformer's weights.

    Args:
        model: the part; its state encoder and its heads are used as they are, so it must not be trained between two
            packings.
        dtype: of the transformer's weights, activations and cache. Rewards and probabilities come out in float32.
    """

    def __init__(self, model: RewardTerminationModel, dtype: torch.dtype = torch.float32) -> None:
        self._model = model
        self._dtype = dtype
        transformer = model.transformer
        self._max_tokens = transformer.max_tokens
        self._blocks = [_PackedBlock(cast(TransformerBlock, block), dtype) for block in transformer.blocks]
        self._position = transformer.position.to(dtype, copy=True)
        self._mask = transformer.causal_mask.to(dtype)
        self._action_encoder = model.action_encoder
        if isinstance(model.action_encoder, AttentionActionEncoder):
            self._action_encoder = _PackedActionEncoder(model.action_encoder, dtype)

    def initial_cache(self, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> KeyValueCache:
        """As `RewardTerminationModel.initial_cache`, in this twin's own type whatever `dtype` says."""
        return self._model.initial_cache(batch_size, device, self._dtype)

    @torch.inference_mode()
    def step(self, cache: KeyValueCache, z: Tensor, action: Tensor) -> tuple[KeyValueCache, Tensor, Tensor]:
        """As `RewardTerminationModel.step`."""
        model = self._model
        if cache.length == self._max_tokens:
            cache = self.initial_cache(z.shape[0], z.device, z.dtype)
        cache = cache.appendable()
        position, stop = cache.length, cache.length + 2
        tokens = torch.stack([model.state_encoder(z), self._action_encoder(action).float()], dim=1)
        x = tokens.to(self._dtype).add_(self._position[position:stop])
        last = len(self._blocks) - 1
        for layer, block in enumerate(self._blocks):
            num_outputs = 1 if layer == last else 2
            mask = self._mask[stop - num_outputs : stop, :stop]
            x = block(x, cache.key_value[:, layer], position, mask, num_outputs)
        hidden = model.transformer.final_norm(x[:, -1].float())
        return cache.advanced(2), *model.read(hidden)
