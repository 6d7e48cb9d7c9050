"""Local observations from the global state by a plain MLP: in MAMuJoCo the one is an exact function of the other."""

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
from worldmodel.types import EnvSpec, LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class ObservationsConfig(Config):
    """Shape and fitting of the observations' decoder."""

    hidden_dims: tuple[int, ...]
    """Widths of the hidden layers."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        self.require(min(self.hidden_dims, default=0) >= 1, "hidden_dims", "at least one layer of at least 1")


class ObservationsDecoder(TrainablePart):
    """Normalised global states [*,S] -> joint observations [*,N,O]; the error is measured in standard deviations."""

    segment_length = 1
    burn_in = 0
    independent = True

    def __init__(
        self,
        config: ObservationsConfig,
        spec: EnvSpec,
        state_norm: RunningNormalizer,
        obs_norm: RunningNormalizer,
    ) -> None:
        """Take running statistics of the state [S] and the joint observation [N*O] from the world model."""
        super().__init__()
        self.optim = config.optim
        self._state_norm = (state_norm,)  # in a tuple: the world model owns it
        self.layout = ObservationLayout(spec, obs_norm)
        self.net = mlp([spec.state_dim, *config.hidden_dims, self.layout.packed_dim], activation="silu")

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Mean squared error over all real states of `segment` [B,1]; `generator` is not used.

        Metrics: `observations_loss`, and `observations_error`, the mean absolute error in the environment's units.
        """
        z = self._state_norm[0].normalize(segment.state.flatten(0, 1))  # [B, T+1, S] -> [B*(T+1), S]
        obs = segment.obs.flatten(0, 1)  # [B, T+1, N, O] -> [B*(T+1), N, O]
        real = segment.state_valid().flatten()
        error = self.net(z) - self.layout.pack(self.layout.normalize(obs))
        loss = masked_mean(error.square().mean(dim=1), real)
        with torch.no_grad():
            raw = self.layout.pack(self.decode(z) - obs).abs().mean(dim=1)
            metrics = {"observations_loss": loss.detach(), "observations_error": masked_mean(raw, real)}
        return LossOutput(loss, metrics)

    def decode(self, z: Tensor) -> Tensor:
        """Joint observations [B,N,O] in the environment's units for normalised states z [B,S]."""
        return self.layout.denormalize(self.layout.spread(self.net(z)))
