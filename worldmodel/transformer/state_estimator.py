"""The global state from what all agents together are known to see.

Not in the source, which has no use for it: it makes the model's errors comparable with those of others.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from worldmodel.config import Config, OptimConfig
from worldmodel.losses import masked_mean
from worldmodel.networks import mlp
from worldmodel.normalize import RunningNormalizer
from worldmodel.observation_layout import ObservationLayout
from worldmodel.protocol import TrainablePart
from worldmodel.transformer.tokenizer import ObservationTokenizer
from worldmodel.types import LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class StateEstimatorConfig(Config):
    """Shape and fitting of the state estimator."""

    hidden_dim: int
    """Width of the hidden layers."""
    num_layers: int
    """Linear layers."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        self.require(self.hidden_dim >= 1, "hidden_dim", "at least 1")
        self.require(self.num_layers >= 1, "num_layers", "at least 1")


class StateEstimator(TrainablePart):
    """An MLP from the joint reconstructed observations z [*,N,P] to the global state [*,S]; nothing else reads it.

    It is fitted on reconstructions, as those are what imagination has; no gradient reaches the tokenizer.

    Args:
        config: see `StateEstimatorConfig`.
        layout: which entries are real.
        tokenizer: makes the reconstructions.
        state_norm: running statistics of the state [S].
    """

    segment_length = 1
    burn_in = 0

    def __init__(
        self,
        config: StateEstimatorConfig,
        layout: ObservationLayout,
        tokenizer: ObservationTokenizer,
        state_norm: RunningNormalizer,
    ) -> None:
        super().__init__()
        self.optim = config.optim
        # In a tuple: the world model owns them.
        self._shared = (layout, tokenizer, state_norm)
        hidden = [config.hidden_dim] * (config.num_layers - 1)
        self.network = mlp([layout.packed_dim, *hidden, state_norm.mean.numel()], activation="gelu")

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Mean squared error of the standardised state over all real states of `segment` [B,T].

        Metrics: `state_error` (mean absolute, in the environment's units). `generator` is not used.
        """
        layout, tokenizer, state_norm = self._shared
        with torch.no_grad():
            z = tokenizer.decode(tokenizer.encode(layout.normalized_rows(segment.obs)))
        estimate = self.network(layout.pack(layout.spread_rows(z)))
        real = segment.state_valid()
        error = (estimate - state_norm.normalize(segment.state)).square().mean(dim=-1)
        with torch.no_grad():
            raw_error = (state_norm.denormalize(estimate) - segment.state).abs().mean(dim=-1)
            metrics = {"state_error": masked_mean(raw_error, real)}
        return LossOutput(masked_mean(error, real), metrics)

    def estimate(self, z: Tensor) -> Tensor:
        """States [*,S] in the environment's units for reconstructions z [*,N,P]."""
        layout, _, state_norm = self._shared
        return state_norm.denormalize(self.network(layout.pack(layout.spread_rows(z))))
