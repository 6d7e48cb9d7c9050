"""A team whose next state is Gaussian, and the denoiser that a perfectly trained network would be.

s' = mean + sum_i gain_i * a_i + noise_std * noise, the a_i independent and unit normal: the setting in which the effect
of showing agents one at a time can be computed.
"""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


@dataclasses.dataclass
class GaussianTeam:
    """The exact E[s' | x, shown actions] for x = s' + sqrt(sigma^2 + offset_noise^2) * noise, in place of a network.

    State dimensions are independent and alike; the state before does not matter.
    """

    gain: Tensor
    """[N] how far each agent's action moves every state dimension."""
    noise_std: float = 0.0
    """Noise that no action explains."""
    mean: float = 0.0
    offset_noise: float = 0.0
    sigma_data: float = 0.5
    seen: list[Tensor] = dataclasses.field(default_factory=list)
    """The masks [J,B,N] that the sampler asked for."""

    @classmethod
    def alike(
        cls, num_agents: int, conditional_std: float, explained: float = 1.0, *, offset_noise: float = 0.0
    ) -> GaussianTeam:
        """N equal agents whose actions make up the share `explained` of the variance of s'.

        `conditional_std` is that of s' before any action is shown, in units of the data's (0.5).
        """
        variance = (0.5 * conditional_std) ** 2
        gain = torch.full((num_agents,), math.sqrt(explained * variance / num_agents))
        return cls(gain, noise_std=math.sqrt((1 - explained) * variance), offset_noise=offset_noise)

    def frozen(self) -> AbstractContextManager[None]:
        """There are no weights to be left alone."""
        return nullcontext()

    def embed_context(self, context: Tensor) -> Tensor:
        """As it is."""
        return context

    def modulation(self, sigma: Tensor, past_action: Tensor, action: Tensor, visible: Tensor, level: Tensor) -> Tensor:
        """[J,B,2]: the mean of s' given what is shown, and the variance that is left."""
        visible = visible[level]
        self.seen.append(visible)
        weight = visible.to(action.dtype) * self.gain  # [J, B or 1, N]
        shown = self.mean + (weight * action[..., 0]).sum(dim=-1)
        hidden = (self.gain.square() * ~visible).sum(dim=-1) + self.noise_std**2
        return torch.stack([shown, hidden.expand_as(shown)], dim=-1)

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """The posterior mean [B,S] of s' given x."""
        mean, variance = modulation[:, :1], modulation[:, 1:]
        noise = sigma**2 + self.offset_noise**2
        # Where actions explain everything and no noise is left, both are 0: the mean is certain.
        trust = torch.where(variance > 0, variance / (variance + noise), 0.0)
        return mean + trust * (x - mean)
