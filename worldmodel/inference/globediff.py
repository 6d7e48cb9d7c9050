"""GlobeDiff: a conditional diffusion model of the global state whose latent variable selects among plausible states.

"GlobeDiff: State Diffusion Process for Partial Observability in Multi-Agent Systems", section 4 and Appendix D. A
latent z is drawn from the posterior q(z | x, s) while learning and from the prior p(z | x) when inferring; a DDPM
of K steps then denoises the state given x and z.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from worldmodel.config import Config, OptimConfig
from worldmodel.inference.auxiliary import AuxiliaryConfig
from worldmodel.inference.fast_unet import FastUnet
from worldmodel.inference.latent import LatentNetwork, kl_divergence, unit_noise
from worldmodel.inference.learned import LearnedInference, build_inference
from worldmodel.inference.noise import ReverseProcess, SamplingNoise, ScheduleKind
from worldmodel.inference.unet import ConditionalUnet1d
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class GlobeDiffConfig(Config):
    """Every option of GlobeDiff."""

    auxiliary: AuxiliaryConfig
    """What a state is inferred from."""
    num_denoising_steps: int
    """K (Table 4: 5)."""
    schedule: ScheduleKind
    """How the noise grows over the K steps; the paper does not say."""
    sampling_noise: SamplingNoise
    """Noise of a reverse step."""
    clip: float
    """Bound on a predicted state, in standard deviations."""
    latent_dim: int
    """Z (Table 3: 16); 0: no latent, an ordinary conditional diffusion model."""
    latent_hidden_dim: int
    """Width of prior and posterior (Table 3: 1024)."""
    latent_layers: int
    """Their hidden layers (Table 3: 3)."""
    kl_weight: float
    """beta_KL of Eq. 10: of the KL summed over z, against the squared error summed over the state's dimensions."""
    channels: tuple[int, ...]
    """Of each U-Net level; each but the last halves the length."""
    num_blocks: int
    """Residual blocks of each level (Table 4: 2)."""
    cond_dim: int
    """Width of the condition vector."""
    groups: int
    """Of the group norms."""
    ema_decay: float
    """Samples come from an average of the denoiser's and the prior's weights that keeps this share of itself at each
    update; 0: from the weights themselves."""
    optim: OptimConfig
    """Of all networks together."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.num_denoising_steps >= 1, "num_denoising_steps", "at least 1")
        self.require(self.clip > 0, "clip", "a number above 0")
        self.require(self.latent_dim >= 0, "latent_dim", "at least 0")
        self.require(self.kl_weight >= 0, "kl_weight", "at least 0")
        for name in ("latent_hidden_dim", "latent_layers", "num_blocks", "groups"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        fits = bool(self.channels) and all(c >= 1 and c % self.groups == 0 for c in self.channels)
        self.require(fits, "channels", f"multiples of groups = {self.groups}, one a level")
        self.require(self.cond_dim >= 4 and self.cond_dim % 2 == 0, "cond_dim", "an even number of at least 4")
        self.require(0 <= self.ema_decay < 1, "ema_decay", "a number in [0, 1)")

    def build(self, spec: EnvSpec) -> LearnedInference:
        """The inferencer for an environment, its weights drawn from torch's default generator."""
        return build_inference(spec, self.auxiliary, lambda x, s: GlobeDiff(self, x, s), self.optim)


class _Networks(nn.Module):
    """What samples are made with: the prior (None without a latent) and the denoiser."""

    def __init__(self, config: GlobeDiffConfig, x_dim: int, state_dim: int) -> None:
        super().__init__()
        z = config.latent_dim
        self.prior = LatentNetwork(x_dim, z, config.latent_hidden_dim, config.latent_layers) if z else None
        self.denoiser = ConditionalUnet1d(
            state_dim, x_dim + z, config.channels, config.num_blocks, config.cond_dim, config.groups
        )


class GlobeDiff(nn.Module):
    """Keeps `StateGenerator`."""

    def __init__(self, config: GlobeDiffConfig, x_dim: int, state_dim: int) -> None:
        """Networks for auxiliary observations of `x_dim` and states of `state_dim` numbers."""
        super().__init__()
        self.config = config
        self.state_dim = state_dim
        self.networks = _Networks(config, x_dim, state_dim)
        z, hidden, layers = config.latent_dim, config.latent_hidden_dim, config.latent_layers
        self.posterior = LatentNetwork(x_dim + state_dim, z, hidden, layers) if z else None
        self.reverse = ReverseProcess(config.schedule, config.num_denoising_steps, config.clip, config.sampling_noise)
        self.averaged = _average_of(self.networks, config.ema_decay) if config.ema_decay else None

    def loss(self, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 10 divided by S, so that a learning rate means the same for all. Training moves the averaged weights.

        Against the error's mean over dimensions a latent that is worth its KL to a state of 4 numbers would be worth
        nothing to one of 17: it was so (benchmarks/results/inference).
        """
        if self.training and self.averaged is not None:
            self.averaged.update_parameters(self.networks)
        z, kl = self._posterior_latent(x, s, generator)
        error = self.noise_error(self.networks, x, s, z, generator).mean()
        loss = error + self.config.kl_weight / self.state_dim * kl.mean()
        return loss, {"inference_error": error.detach(), "inference_kl": kl.mean().detach()}

    def noise_error(self, networks: Any, x: Tensor, s: Tensor, z: Tensor | None, generator: torch.Generator) -> Tensor:
        """Squared error of the predicted noise at a random step [B], averaged over the state's dimensions."""
        step = torch.randint(self.reverse.num_steps, (s.shape[0],), generator=generator, device=s.device)
        noise = unit_noise(s.shape, s, generator)
        noisy = self.reverse.add_noise(s, noise, step)
        embedded = networks.denoiser.embed_condition(_condition(x, z))
        return (networks.denoiser(noisy, step, embedded) - noise).square().mean(dim=1)

    def _posterior_latent(self, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
        """(z [B,Z] from the posterior, KL to the prior [B] in nats)."""
        prior = self.networks.prior
        if self.posterior is None or prior is None:
            return None, s.new_zeros(s.shape[0])
        q = self.posterior(torch.cat([x, s], dim=1))
        return q.sample(unit_noise(q.mean.shape, s, generator)), kl_divergence(q, prior(x))

    def latent_report(self, x: Tensor, s: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """By row [B]: the KL in nats, and the error of the predicted noise with z from the posterior and the prior.

        Empty without a latent. Both errors meet the same steps and noise. Prior and denoiser are those that samples
        are made with, so averaged with `ema_decay` > 0: it is their use of the latent that is judged. No sample needs
        the posterior, so there is no average of it, and the one in training serves as the probe: early in a fit, or
        with a high learning rate at its end, the KL and `error_posterior` also hold how far the average lags behind.
        """
        networks = self._sampling_networks()
        if self.posterior is None or networks.prior is None:
            return {}
        q, p = self.posterior(torch.cat([x, s], dim=1)), networks.prior(x)
        unit = unit_noise(q.mean.shape, s, generator)
        position = generator.get_state()
        with_posterior = self.noise_error(networks, x, s, q.sample(unit), generator)
        generator.set_state(position)
        with_prior = self.noise_error(networks, x, s, p.sample(unit), generator)
        return {"kl": kl_divergence(q, p), "error_posterior": with_posterior, "error_prior": with_prior}

    def draw_noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """[rows, Z + (K+1)*S]: the latent's, the start's, and one a reverse step."""
        size = self.config.latent_dim + (self.reverse.num_steps + 1) * self.state_dim
        return unit_noise((rows, size), self.reverse.std, generator)

    @torch.no_grad()
    def sample(self, x: Tensor, noise: Tensor) -> Tensor:
        """One state [B,S] for each row of x: z from the prior, then K reverse steps (Algorithm of section 4.1.2)."""
        networks = self._sampling_networks()
        latent = self.config.latent_dim
        chain = noise[:, latent:].unflatten(1, (-1, self.state_dim))  # [B,K+1,S]
        z = None if networks.prior is None else networks.prior(x).sample(noise[:, :latent])
        embedded = networks.denoiser.embed_condition(_condition(x, z))
        denoiser = FastUnet(networks.denoiser, self.reverse.num_steps)
        conditions = denoiser.conditions(embedded)
        s = chain[:, 0]
        for step in reversed(range(self.reverse.num_steps)):
            s = self.reverse.denoise(s, denoiser(s, conditions[step]), step, chain[:, step + 1])
        return s

    def _sampling_networks(self) -> Any:
        return self.networks if self.averaged is None else self.averaged.module


def _average_of(networks: nn.Module, decay: float) -> AveragedModel:
    average = AveragedModel(networks, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.requires_grad_(False)
    return average


def _condition(x: Tensor, z: Tensor | None) -> Tensor:
    return x if z is None else torch.cat([x, z], dim=1)
