"""Pre-norm attention and gated feed-forward layers over small sets of tokens, without their residual connections."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Multi-head attention of tokens [B,L,D] to each other; the sum of the heads' widths need not be D."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * num_heads * head_dim)
        self.out = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B,L,D] -> [B,L,D]."""
        packed = self.query_key_value(self.norm(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # [B, L, 3, heads, E] -> 3 x [B, heads, L, E]
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """GEGLU layer (GLU Variants Improve Transformer, arXiv 2002.05202), hidden width 4 D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 8 * dim)
        self.out = nn.Linear(4 * dim, dim)

    def hidden(self, x: Tensor) -> Tensor:
        """The gated hidden layer: [*,D] -> [*,4*D]."""
        value, gate = self.expand(self.norm(x)).chunk(2, dim=-1)
        return value * functional.gelu(gate)

    def forward(self, x: Tensor) -> Tensor:
        """[*,D] -> [*,D]."""
        return self.out(self.hidden(x))

    def mean(self, x: Tensor) -> Tensor:
        """The mean over L of x plus the layer's output: [B,L,D] -> [B,D].

        The output map is linear, so the mean is taken before it.
        """
        return x.mean(dim=1) + self.out(self.hidden(x).mean(dim=1))
