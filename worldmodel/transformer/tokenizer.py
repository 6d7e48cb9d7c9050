"""Observations as a few discrete tokens, and back: an autoencoder with finite scalar quantisation.

The tokenizer of MARIE (arXiv 2406.15836; the authors' published code, `SimpleFSQAutoEncoder`). One network serves all
agents; it sees single observations of single agents, never time and never what others see.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, cast

import torch
from torch import Tensor

from worldmodel.config import Config, OptimConfig
from worldmodel.losses import masked_mean
from worldmodel.networks import mlp
from worldmodel.observation_layout import ObservationLayout
from worldmodel.protocol import TrainablePart
from worldmodel.types import LossOutput, Segment

MAX_CODES = 2**20
"""Different tokens: the quantiser keeps a table of them, and numbers them in float32."""


@dataclasses.dataclass(frozen=True)
class TokenizerConfig(Config):
    """Shape and fitting of the tokenizer."""

    num_tokens: int
    """L: tokens that stand for one agent's observation."""
    levels: tuple[int, ...]
    """Values that each channel of a token may take; their product is the number of different tokens, V."""
    hidden_dim: int
    """Width of the hidden layers."""
    num_layers: int
    """Linear layers in the encoder, and again in the decoder."""
    loss: Literal["absolute", "squared"]
    """Error between reconstructed and true observations, both standardised."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("num_tokens", "hidden_dim"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.num_layers >= 2, "num_layers", "at least 2")
        valid_levels = len(self.levels) > 0 and min(self.levels) >= 3
        self.require(valid_levels, "levels", "one number of at least 3 a channel")
        self.require(self.num_codes <= MAX_CODES, "levels", f"a product of at most {MAX_CODES}")

    @property
    def num_codes(self) -> int:
        """V: how many different tokens there are."""
        return math.prod(self.levels)


class ObservationTokenizer(TrainablePart):
    """Standardised own observations z [*,N,P] to tokens [*,N,L], numbers from 0 to V-1, and back.

    Differs from the source: who observes is told to encoder and decoder as a one-hot, so that no token is spent on it,
    and errors count in standardised units, so that no entry is lost for being small.

    Args:
        config: see `TokenizerConfig`.
        layout: which entries are real.
    """

    segment_length = 1
    burn_in = 0
    identity: Tensor

    def __init__(self, config: TokenizerConfig, layout: ObservationLayout) -> None:
        super().__init__()
        # Here, because the library takes long to import and nothing else needs it.
        from vector_quantize_pytorch import FSQ

        self.config = config
        self.optim = config.optim
        # In a tuple: the world model owns the layout.
        self._layout = (layout,)
        self.register_buffer("identity", torch.eye(layout.num_agents), persistent=False)
        channels = config.num_tokens * len(config.levels)
        hidden = [config.hidden_dim] * (config.num_layers - 1)
        self.encoder = mlp([layout.row_dim + layout.num_agents, *hidden, channels], activation="gelu")
        self.decoder = mlp([channels + layout.num_agents, *hidden, layout.row_dim], activation="gelu")
        self.quantizer = FSQ(levels=list(config.levels))

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Reconstruction loss over all real observations of `segment` [B,T] and their real entries.

        Metrics: `tokenizer_error` (mean absolute, in standard deviations) and `tokenizer_active` (share of the V tokens
        that occur in the batch). `generator` is not used.
        """
        layout = self._layout[0]
        z = layout.normalized_rows(segment.obs)
        codes, tokens = self._quantize(z)
        error = self._reconstruct(codes) - z
        real = segment.state_valid()
        entries = real[:, :, None, None] & layout.row_mask
        loss = masked_mean(error.abs() if self.config.loss == "absolute" else error.square(), entries)
        with torch.no_grad():
            metrics = {
                "tokenizer_error": masked_mean(error.abs(), entries),
                "tokenizer_active": self._active_share(tokens, real),
            }
        return LossOutput(loss, metrics)

    def encode(self, z: Tensor) -> Tensor:
        """Tokens [*,N,L] (int64) of z [*,N,P]."""
        return self._quantize(z)[1]

    def decode(self, tokens: Tensor) -> Tensor:
        """Reconstructions [*,N,P] of z from tokens [*,N,L]; 0 where an agent has no entry."""
        return self._reconstruct(self.codes(tokens))

    def codes(self, tokens: Tensor) -> Tensor:
        """The channels [*,C] in [-1, 1] that `tokens` [*] stand for."""
        # The library's own lookup would take more than two axes for an image.
        return cast(Tensor, self.quantizer.implicit_codebook)[tokens]

    def _quantize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [*,N,L,C], with gradient to the encoder, and their numbers [*,N,L]."""
        x = self.encoder(self._with_identity(z))
        x = x.unflatten(-1, (self.config.num_tokens, len(self.config.levels)))
        # The quantiser wants [rows, tokens, channels] and would take a fourth axis for an image.
        codes, tokens = self.quantizer(x.flatten(0, -3))
        return codes.view(x.shape), tokens.view(x.shape[:-1]).long()

    def _reconstruct(self, codes: Tensor) -> Tensor:
        """z [*,N,P] from codes [*,N,L,C]."""
        return self.decoder(self._with_identity(codes.flatten(-2))) * self._layout[0].row_mask

    def _with_identity(self, x: Tensor) -> Tensor:
        """Append who it is: [*,N,X] -> [*,N,X+N]."""
        return torch.cat([x, self.identity.expand(*x.shape[:-1], -1)], dim=-1)

    def _active_share(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Share of the V tokens that occur in `tokens` [B,T,N,L] where `real` [B,T]."""
        unused = self.config.num_codes  # tokens of padding are counted in a bin of their own
        counted = torch.where(real[:, :, None, None], tokens, unused).flatten()
        seen = torch.zeros(unused + 1, device=tokens.device).scatter(0, counted, 1.0)
        return seen[:-1].mean()
