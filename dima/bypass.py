"""A linear way around the U-Net, for states of more dimensions than the U-Net has channels.

Noise has as many directions as the state, and so may a step's change have: a narrower network can neither take the one
off nor put the other on. Beside it goes what would denoise a linear world: each dimension of x times a gain of its own,
and a linear guess at the clean target. The paper has no such path.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.types import EnvSpec

MEAN_SCALE = 4.0
"""What the mean is multiplied with, so that its weights, up to 1 in standard deviations, are there sooner: Adam moves
each by at most the learning rate an update. (Bi-DexHands, errors over 15 steps after 600 updates: 4.6 at 1, 4.2 at 2,
4.0 at 8, trials of which no file was kept; 4 was not among them.)"""


class LinearBypass(nn.Module):
    """gain_x * x + gain_mean * mean, with mean = W s_t + b + sum over visible agents of A_i a_i.

    The gains [S] are learned functions of the noise level. All weights start at zero, and so does the output.
    """

    def __init__(self, spec: EnvSpec, noise_dim: int, sigma_data: float) -> None:
        """Build the maps for `spec`; `noise_dim` is the number of features of a noise level."""
        super().__init__()
        self.sigma_data = sigma_data
        self.state = nn.Linear(spec.state_dim, spec.state_dim)
        self.agent_weight = nn.Parameter(torch.zeros(spec.num_agents, spec.action_dim, spec.state_dim))
        self.gains = nn.Linear(noise_dim, 2 * spec.state_dim)
        for layer in (self.state, self.gains):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def noise_gains(self, features: Tensor, c_out: Tensor) -> tuple[Tensor, Tensor]:
        """gain_x and gain_mean [*,S] from the features [*,D] of noise levels and EDM's factor c_out [*]."""
        gain_x, gain_mean = self.gains(features).chunk(2, dim=-1)
        # At first (1 - c_skip) / c_out, as if x told nothing of the target beyond c_skip's share.
        return gain_x, MEAN_SCALE * (gain_mean + c_out[..., None] / self.sigma_data**2)

    def mean_of_actions(self, action: Tensor, visible: Tensor) -> Tensor:
        """What the visible ones of the actions [B,N,A] add to the mean: [M,B,S] for masks [M,B,N] or [M,1,N]."""
        by_agent = torch.einsum("bna,nas->bns", action, self.agent_weight)
        mask = visible.to(by_agent.dtype).expand(-1, by_agent.shape[0], -1)
        return torch.einsum("mbn,bns->mbs", mask, by_agent)

    def mean_of_state(self, context: Tensor) -> Tensor:
        """What the last of the states [B,K+1,S], in units of sigma_data, adds to the mean: [B,S]."""
        return self.state(context[:, -1] / self.sigma_data)

    def modulation(
        self, features: Tensor, c_out: Tensor, action: Tensor, visible: Tensor, level: Tensor | None
    ) -> Tensor:
        """All that `forward` needs besides states, for J noise levels: [J,B,3*S]; arguments as `Denoiser.modulation`.

        `features` [J,B,D] or [J,1,D] and `c_out` [J,B] or [J,1] are those of the noise levels.
        """
        mean = self.mean_of_actions(action, visible)
        if level is not None:
            mean = mean[level]
        gains = torch.cat(self.noise_gains(features, c_out), dim=-1)
        return torch.cat([gains.expand(-1, mean.shape[1], -1), mean], dim=-1)

    def forward(self, x: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """The output [B,S] for scaled noisy x [B,S], past states [B,K+1,S] and a modulation [B,3*S]."""
        gain_x, gain_mean, mean_of_actions = modulation.chunk(3, dim=1)
        return gain_x * x + gain_mean * (self.mean_of_state(context) + mean_of_actions)
