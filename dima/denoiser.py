"""The EDM-preconditioned denoiser of the next global state, and the loss that trains it.

D(x; sigma, actions) = c_skip * x + c_out * F(c_in * x, c_noise, context, visible actions): Karras et al.
(arXiv 2206.00364, Table 1) with DIMA's conditioning (Appendix B, G.1 and Algorithm 1). States are in units of
sigma_data = 0.5 standard deviations of the data.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.bypass import LinearBypass
from dima.conditioning import ActionEncoderKind, build_action_encoder
from dima.reveal import ActionReveal
from dima.schedule import draw_training_sigmas
from dima.target import StateTarget
from dima.temporal_unet import GROUP_SIZE, FourierFeatures, GroupNorm, TemporalUnet, temporal_conv
from worldmodel.config import Config, OptimConfig
from worldmodel.normalize import RunningNormalizer
from worldmodel.protocol import TrainablePart
from worldmodel.short_convolution import folded_convolutions
from worldmodel.types import EnvSpec, LossOutput, Segment


class Preconditioners(NamedTuple):
    """The four EDM factors for noise levels sigma, in sigma's shape."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor


def preconditioners(sigma: Tensor, sigma_data: float, sigma_offset_noise: float) -> Preconditioners:
    """EDM's Table 1 at the effective noise sqrt(sigma^2 + sigma_offset_noise^2) (DIAMOND, Appendix)."""
    effective = (sigma**2 + sigma_offset_noise**2).sqrt()
    total = (effective**2 + sigma_data**2).sqrt()
    return Preconditioners(
        c_in=1 / total,
        c_skip=sigma_data**2 / total**2,
        c_out=effective * sigma_data / total,
        c_noise=effective.log() / 4,
    )


@dataclasses.dataclass(frozen=True)
class DenoiserConfig(Config):
    """Architecture and training of the denoiser."""

    channels: tuple[int, ...]
    """Channels of each U-Net level (Table 3: 64, 64, 64)."""
    depths: tuple[int, ...]
    """Residual blocks of each U-Net level (Table 3: 2, 2, 2)."""
    cond_dim: int
    """Width of the condition vector (Table 3: 256)."""
    context_states: int
    """Past states beside the noisy next one (Appendix G.1: 3); this plus 1 is the U-Net's length."""
    num_targets: int
    """Successive targets of a training segment, each conditioned on the model's own output for those before it."""
    scale_context: bool
    """Divide the past states by sigma_data (as DIAMOND does; the published DIMA code does not)."""
    loss: Literal["preconditioned", "denoised"]
    """`preconditioned`: error of F, i.e. EDM's weight on the error of D. `denoised`: unweighted error of D (Alg. 1)."""
    sigma_log_mean: float
    """P_mean of ln(sigma) (Eq. 18: -0.4)."""
    sigma_log_std: float
    """P_std of ln(sigma) (Eq. 18: 1.2)."""
    sigma_clip: tuple[float, ...]
    """Lowest and highest training sigma."""
    optim: OptimConfig
    """Optimiser of the denoiser."""
    bypass: Literal["none", "linear"] = "none"
    """`linear`: add a full-rank linear path around the U-Net, for states with more dimensions than it has channels."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.context_states >= 1, "context_states", "at least 1")
        self.require(self.num_targets >= 1, "num_targets", "at least 1")
        self.require(len(self.channels) > 0 and min(self.channels) >= 1, "channels", "one number of at least 1 a level")
        one_a_level = len(self.depths) == len(self.channels) and min(self.depths) >= 1
        self.require(one_a_level, "depths", f"one number of at least 1 for each of {len(self.channels)} levels")
        whole_groups = all(width % max(1, width // GROUP_SIZE) == 0 for width in self._normalised_widths())
        self.require(whole_groups, "channels", f"multiples of {GROUP_SIZE}, or numbers small enough for one group each")
        rising = len(self.sigma_clip) == 2 and 0 < self.sigma_clip[0] < self.sigma_clip[1]
        self.require(rising, "sigma_clip", "[low, high]")
        self.require(self.cond_dim >= 2 and self.cond_dim % 2 == 0, "cond_dim", "an even number of at least 2")

    def _normalised_widths(self) -> list[int]:
        """The channels that a group norm meets: each level's, and with a skip from the same or the level above."""
        above = (self.channels[0], *self.channels[:-1])
        return [width for c, b in zip(self.channels, above, strict=True) for width in (c, 2 * c, c + b)]


class Denoiser(TrainablePart):
    """The network F and everything that turns it into D; trained on segments of K + num_targets transitions."""

    independent = True

    def __init__(
        self,
        config: DenoiserConfig,
        spec: EnvSpec,
        state_norm: RunningNormalizer,
        target: StateTarget,
        reveal: ActionReveal,
        *,
        action_encoder: ActionEncoderKind,
        sigma_data: float,
        sigma_offset_noise: float,
    ) -> None:
        """Build the network for `spec`; normaliser, target and reveal schedule belong to the world model."""
        super().__init__()
        self.config = config
        self.optim = config.optim
        self.sigma_data = sigma_data
        self.sigma_offset_noise = sigma_offset_noise
        self.burn_in = config.context_states - 1
        self.segment_length = self.burn_in + config.num_targets
        # In a tuple, so that they are not registered twice: the world model owns and saves them.
        self._shared = (state_norm, target, reveal)
        width, length = config.channels[0], config.context_states + 1
        self.action_encoder = build_action_encoder(
            action_encoder, spec.num_agents, spec.action_dim, self.burn_in, config.cond_dim
        )
        self.noise_features = FourierFeatures(config.cond_dim)
        self.condition = nn.Sequential(
            nn.Linear(config.cond_dim, config.cond_dim), nn.SiLU(), nn.Linear(config.cond_dim, config.cond_dim)
        )
        self.conv_in = temporal_conv(spec.state_dim, width, length)
        self.unet = TemporalUnet(config.channels, config.depths, length, config.cond_dim)
        self.norm_out = GroupNorm(width)
        self.conv_out = temporal_conv(width, spec.state_dim, length)
        nn.init.zeros_(self.conv_out.conv.weight)
        self.bypass = LinearBypass(spec, config.cond_dim, sigma_data) if config.bypass == "linear" else None

    def precondition(self, sigma: Tensor) -> Preconditioners:
        """EDM's factors for `sigma`, at this model's sigma_data and offset noise."""
        return preconditioners(sigma, self.sigma_data, self.sigma_offset_noise)

    def frozen(self) -> AbstractContextManager[None]:
        """A stretch in which no weight changes, so that what depends on weights alone is computed once."""
        return folded_convolutions(self)

    def embed_context(self, context: Tensor) -> Tensor:
        """The past states as `denoise` takes them: as they are."""
        return context

    def modulation(
        self, sigma: Tensor, past_action: Tensor, action: Tensor, visible: Tensor, level: Tensor | None = None
    ) -> Tensor:
        """Everything the network needs besides states, for all noise levels at once: [J,B,P].

        The U-Net's scales and shifts, and behind them what the bypass needs.

        Args:
            sigma: [J,B] or [J,1] noise levels.
            past_action: [B,K,N,A], always visible.
            action: [B,N,A], the current joint action.
            visible: [M,B,N] or [M,1,N] bool masks, whose current action may be seen.
            level: [J] which of the masks each noise level obeys; None: one mask a level, in order.
        """
        factors = self.precondition(sigma)
        noise = self.noise_features(factors.c_noise)
        actions = self.action_encoder.pool(self.action_encoder.tokens(past_action, action), visible)
        if level is not None:
            actions = actions[level]
        modulation = self.unet.modulate(self.condition(noise + actions))
        if self.bypass is None:
            return modulation
        return torch.cat([modulation, self.bypass.modulation(noise, factors.c_out, action, visible, level)], dim=-1)

    def network(self, x: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """F: scaled noisy state x [B,S], past states [B,K+1,S] and modulation [B,P] to [B,S]."""
        size = self.unet.modulation.out_features
        past = context / self.sigma_data if self.config.scale_context else context
        # [B, K+2, S] -> [B, S, K+2]: time is the convolution's axis, state dimensions are channels
        h = torch.cat([past, x[:, None]], dim=1).transpose(1, 2)
        h = self.unet(self.conv_in(h), modulation[:, :size])
        output = self.conv_out(functional.silu(self.norm_out(h)))[:, :, -1]
        return output if self.bypass is None else output + self.bypass(x, context, modulation[:, size:])

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """D: the expected clean target [B,S] for noisy x [B,S] at sigma ([B] or a scalar tensor)."""
        factors = Preconditioners(*(f[..., None] for f in self.precondition(sigma)))
        return factors.c_skip * x + factors.c_out * self.network(factors.c_in * x, context, modulation)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Loss over the segment's valid targets: `num_targets` in turn, the own output fed back without gradient."""
        state_norm, target, _ = self._shared
        real = segment.state_valid()[:, :, None]
        clean = self.sigma_data * state_norm.normalize(segment.state) * real
        states = list(clean.unbind(dim=1))
        total = clean.new_zeros(())
        count = segment.valid[:, self.burn_in :].sum()
        with self.frozen():  # kernels are laid out once for all targets, and their gradient is gathered once
            for t in range(self.burn_in, self.segment_length):
                context = torch.stack(states[t - self.burn_in : t + 1], dim=1)
                past = segment.action[:, t - self.burn_in : t]
                wanted = target.encode(states[t], clean[:, t + 1])
                error, denoised = self._target_error(wanted, context, past, segment.action[:, t], generator)
                valid = segment.valid[:, t]
                total = total + (error * valid).sum()
                # Where the transition is padding, what follows it stays as replay gave it: zeros, or the start.
                states[t + 1] = torch.where(valid[:, None], target.decode(states[t], denoised), states[t + 1])
        loss = total / count.clamp(min=1)
        return LossOutput(loss, {"denoiser_loss": loss.detach()})

    def _target_error(
        self, target: Tensor, context: Tensor, past: Tensor, action: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error [B] on `target` [B,S] at a random noise level, and the detached denoised state [B,S]."""
        _, _, reveal = self._shared
        low, high = self.config.sigma_clip
        sigma = draw_training_sigmas(
            target.shape[0],
            generator,
            log_mean=self.config.sigma_log_mean,
            log_std=self.config.sigma_log_std,
            sigma_min=low,
            sigma_max=high,
        )
        visible = reveal.training_masks(sigma, generator)
        effective = (sigma**2 + self.sigma_offset_noise**2).sqrt()[:, None]
        noise = torch.randn(target.shape, generator=generator, device=target.device, dtype=target.dtype)
        noisy = target + effective * noise
        c_in, c_skip, c_out, _ = (f[:, None] for f in self.precondition(sigma))
        modulation = self.modulation(sigma[None], past, action, visible[None])[0]
        output = self.network(c_in * noisy, context, modulation)
        denoised = c_skip * noisy + c_out * output
        if self.config.loss == "denoised":
            error = (denoised - target).square().mean(dim=1)
        else:
            error = (output - (target - c_skip * noisy) / c_out).square().mean(dim=1)
        return error, denoised.detach()
