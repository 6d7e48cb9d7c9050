"""What actors see of observations through the tokenizer, as a module that can be exported without the rest."""

from __future__ import annotations

from torch import Tensor, nn

from worldmodel.normalize import RunningNormalizer
from worldmodel.observation_layout import ObservationLayout
from worldmodel.transformer.tokenizer import ObservationTokenizer


class ReconstructedObs(nn.Module):
    """Observations to tokens and back; shares the modules of the world model."""

    def __init__(
        self,
        tokenizer: ObservationTokenizer,
        layout: ObservationLayout,
        obs_norm: RunningNormalizer,
        *,
        normalize_obs: bool,
    ) -> None:
        """`obs_norm`: the statistics of `layout`. `normalize_obs`: show standardised observations."""
        super().__init__()
        self.tokenizer = tokenizer
        self.layout = layout
        self.norm = obs_norm
        self.normalize_obs = normalize_obs

    def forward(self, obs: Tensor) -> Tensor:
        """[B,N,O] -> [B,N,O]."""
        z = self.tokenizer.decode(self.tokenizer.encode(self.layout.normalized_rows(obs)))
        return show_reconstructed(self.layout, z, normalize_obs=self.normalize_obs)


def show_reconstructed(layout: ObservationLayout, z: Tensor, *, normalize_obs: bool) -> Tensor:
    """The observations [B,N,O], standardised or not, that the reconstructions z [B,N,P] stand for."""
    normal = layout.spread_rows(z)
    return layout.complete(normal) if normalize_obs else layout.denormalize(normal)
