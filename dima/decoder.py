"""The state decoder: one global state in, every agent's local observation out.

An autoencoder between two different spaces, after DIMA (appendix G.1 and Table 3): an MLP encoder, a quantiser that
squeezes the state through a small discrete code, a mirrored MLP decoder. It sees single states, never time.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from worldmodel.config import Config, OptimConfig
from worldmodel.losses import masked_mean
from worldmodel.networks import mlp
from worldmodel.normalize import RunningNormalizer
from worldmodel.observation_layout import ObservationLayout
from worldmodel.protocol import TrainablePart
from worldmodel.types import EnvSpec, LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Config):
    """Shape and fitting of the state decoder."""

    quantizer: Literal["fsq", "vq", "none"]
    """fsq: finite scalar quantisation (paper); vq: a learned codebook (the authors' published code); none: one plain
    MLP without a bottleneck, as a reference."""
    hidden_dim: int
    """Width of the hidden layers."""
    num_layers: int
    """Linear layers in the encoder, and again in the decoder."""
    num_tokens: int
    """Codes that stand for one state."""
    levels: tuple[int, ...]
    """fsq: values that each channel of a code may take."""
    code_dim: int
    """vq: numbers in a code."""
    num_codes: int
    """vq: codes in the codebook."""
    codebook_decay: float
    """vq: decay of the moving averages that the codes follow."""
    commitment_weight: float
    """vq: weight of the loss that keeps the encoder near its codes."""
    loss: Literal["absolute", "squared"]
    """Error between decoded and true observations."""
    target: Literal["raw", "normalized"]
    """Units the network is fitted in: the environment's, or each entry divided by its running standard deviation,
    which is the sound choice when scales differ."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("hidden_dim", "num_tokens", "code_dim", "num_codes"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.num_layers >= 2, "num_layers", "at least 2")
        valid_levels = len(self.levels) > 0 and min(self.levels) >= 3
        self.require(valid_levels, "levels", "one number of at least 3 a channel")
        self.require(0 <= self.codebook_decay < 1, "codebook_decay", "a number in [0, 1)")
        self.require(self.commitment_weight >= 0, "commitment_weight", "a number of at least 0")

    @property
    def token_dim(self) -> int:
        """Numbers in one code."""
        return len(self.levels) if self.quantizer == "fsq" else self.code_dim


class StateDecoder(TrainablePart):
    """Decodes normalised global states [*,S] (std 1) into joint observations [*,N,O] in the environment's units.

    Only entries that carry information are predicted. Padding is written as exact zeros and, differs from paper, the
    agent ids that the environment appends are known constants and written exactly as well.

    Args:
        config: see `DecoderConfig`.
        spec: gives S and the layout of the observations.
        state_norm: running statistics of the state [S].
        obs_norm: running statistics of the joint observation, flattened to [N*O].

    Raises:
        ValueError: when `obs_norm` has another size.
    """

    segment_length = 1
    burn_in = 0
    independent = True

    def __init__(
        self, config: DecoderConfig, spec: EnvSpec, state_norm: RunningNormalizer, obs_norm: RunningNormalizer
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = config.optim
        # In a tuple, so that it is not registered here: the world model owns, moves and saves the normalisers.
        self._state_norm = (state_norm,)
        self.layout = ObservationLayout(spec, obs_norm)
        hidden = [config.hidden_dim] * (config.num_layers - 1)
        self.encoder, self.quantizer = None, None
        decoder_input = spec.state_dim
        if config.quantizer != "none":
            decoder_input = config.num_tokens * config.token_dim
            self.encoder = mlp([spec.state_dim, *hidden, decoder_input], activation="gelu")
            self.quantizer = build_quantizer(config)
        self.decoder = mlp([decoder_input, *hidden, self.layout.packed_dim], activation="gelu")

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Reconstruction loss over all real states of `segment` [B,T] and over the entries that are predicted.

        Metrics: `decoder_loss`, `decoder_error` (mean absolute error in the environment's units) and, with a
        codebook, `decoder_commitment`. `generator` is not used.
        """
        state = segment.state.flatten(0, 1)  # [B, T+1, S] -> [B*(T+1), S]
        obs = segment.obs.flatten(0, 1)  # [B, T+1, N, O] -> [B*(T+1), N, O]
        real = segment.state_valid().flatten()
        code, commitment = self._encode(self._state_norm[0].normalize(state), real)
        decoded = self.decoder(code)

        target = self.layout.pack(obs if self.config.target == "raw" else self.layout.normalize(obs))
        error = (decoded - target).abs() if self.config.loss == "absolute" else (decoded - target).square()
        loss = masked_mean(error.mean(dim=-1), real) + self.config.commitment_weight * commitment
        metrics = {"decoder_loss": loss.detach()}
        with torch.no_grad():
            raw_error = self.layout.pack(self._to_obs(decoded) - obs)
            metrics["decoder_error"] = masked_mean(raw_error.abs().mean(dim=-1), real)
        if self.config.quantizer == "vq":
            metrics["decoder_commitment"] = commitment.detach()
        return LossOutput(loss, metrics)

    def decode(self, z: Tensor) -> Tensor:
        """Joint observations [*,N,O] in the environment's units for normalised states z [*,S]; learns nothing."""
        code, _ = self._encode(z.flatten(0, -2), None)
        return self._to_obs(self.decoder(code)).unflatten(0, z.shape[:-1])

    def _encode(self, z: Tensor, learn_from: Tensor | None) -> tuple[Tensor, Tensor]:
        """Quantised codes [B, tokens * token_dim] of z [B,S], and the commitment loss.

        `learn_from` [B] bool says which rows a codebook may follow; None: it stays as it is.
        """
        if self.encoder is None or self.quantizer is None:
            return z, z.new_zeros(())
        # The quantisers want [batch, tokens, channels] and would take a fourth axis for an image.
        token = self.encoder(z).unflatten(-1, (self.config.num_tokens, self.config.token_dim))
        if self.config.quantizer == "fsq":
            return self.quantizer(token)[0].flatten(1), z.new_zeros(())
        mask = None if learn_from is None else learn_from[:, None].expand(-1, token.shape[1])
        code = self.quantizer(token, mask=mask, freeze_codebook=learn_from is None)[0]
        commitment = z.new_zeros(())
        if learn_from is not None:
            # Computed here because the library's masked loss waits for the device to count the rows.
            commitment = masked_mean((token - code.detach()).square().mean(dim=(1, 2)), learn_from)
        return code.flatten(1), commitment

    def _to_obs(self, decoded: Tensor) -> Tensor:
        """Observations [B,N,O] in the environment's units from the network's output [B,D]."""
        obs = self.layout.spread(decoded)
        return self.layout.complete(obs) if self.config.target == "raw" else self.layout.denormalize(obs)


def build_quantizer(config: DecoderConfig) -> nn.Module:
    """The quantiser of `config`: [B, tokens, channels] to (codes of that shape, ...); imports its library only here."""
    if config.quantizer == "fsq":
        from vector_quantize_pytorch import FSQ

        return FSQ(levels=list(config.levels), return_indices=False)
    from vector_quantize_pytorch import VectorQuantize

    return VectorQuantize(
        dim=config.code_dim,
        codebook_size=config.num_codes,
        decay=config.codebook_decay,
        commitment_weight=0.0,  # the decoder adds its own, see `StateDecoder._encode`
        rotation_trick=False,  # the plain straight-through gradient, as in the authors' published code
    )
