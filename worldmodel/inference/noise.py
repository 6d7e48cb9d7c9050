"""The noise that GlobeDiff's diffusion adds and takes away: DDPM (arXiv 2006.11239) with a handful of steps.

The schedule lives in diffusers' `DDPMScheduler`; its numbers are copied into buffers once, so that a whole reverse
chain runs without asking Python for a coefficient and can be exported. The paper gives K = 5 and no schedule.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

ScheduleKind = Literal["vp", "cosine", "linear"]

SamplingNoise = Literal["posterior", "literal"]
"""Noise of a reverse step: the posterior's variance and none at the last one (DDPM), or beta at every one (Eq. 9)."""

_VP_MIN, _VP_MAX = 0.1, 10.0
_COSINE_OFFSET, _LARGEST_BETA = 0.008, 0.999
_LINEAR_FIRST, _LINEAR_LAST = 1e-4, 0.02


def make_betas(kind: ScheduleKind, num_steps: int) -> Tensor:
    """beta_1..beta_K [K], float64.

    `vp`: the variance-preserving SDE's exponential rates (0.1 to 10), cut into K equal pieces. `cosine`: Nichol and
    Dhariwal's (arXiv 2102.09672). `linear`: 1e-4 to 0.02, DDPM's for a thousand steps; with few it leaves most of the
    state in what should be noise, and is here to show that.
    """
    step = torch.arange(1, num_steps + 1, dtype=torch.float64)
    if kind == "vp":
        rate = _VP_MIN / num_steps + (_VP_MAX - _VP_MIN) * (2 * step - 1) / (2 * num_steps**2)
        return 1 - torch.exp(-rate)
    if kind == "cosine":

        def kept(time: Tensor) -> Tensor:
            return torch.cos((time / num_steps + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2

        return (1 - kept(step) / kept(step - 1)).clamp(max=_LARGEST_BETA)
    return torch.linspace(_LINEAR_FIRST, _LINEAR_LAST, num_steps, dtype=torch.float64)


def make_scheduler(kind: ScheduleKind, num_steps: int, clip: float) -> Any:
    """diffusers' `DDPMScheduler` with these betas; predictions of the clean state are clipped to +-`clip`."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=num_steps,
        trained_betas=make_betas(kind, num_steps).tolist(),
        variance_type="fixed_small",
        prediction_type="epsilon",
        clip_sample=True,
        clip_sample_range=clip,
    )


class ReverseProcess(nn.Module):
    """The forward noise and the reverse steps, as plain tensors. Steps count from 0 (least noise) to K-1."""

    signal: Tensor
    noise: Tensor
    clean_weight: Tensor
    noisy_weight: Tensor
    std: Tensor

    def __init__(self, kind: ScheduleKind, num_steps: int, clip: float, sampling_noise: SamplingNoise) -> None:
        """Read the scheduler's numbers."""
        super().__init__()
        self.num_steps = num_steps
        self.clip = clip
        scheduler = make_scheduler(kind, num_steps, clip)
        beta, kept = scheduler.betas.double(), scheduler.alphas_cumprod.double()
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        if sampling_noise == "literal":
            std = beta.sqrt()
        else:
            std = torch.tensor([float(scheduler._get_variance(k)) for k in range(num_steps)]).double().sqrt()
            std[0] = 0.0
        numbers = {
            "signal": kept.sqrt(),
            "noise": (1 - kept).sqrt(),
            "clean_weight": before.sqrt() * beta / (1 - kept),
            "noisy_weight": (1 - beta).sqrt() * (1 - before) / (1 - kept),
            "std": std,
        }
        for name, number in numbers.items():
            self.register_buffer(name, number.float(), persistent=False)

    def add_noise(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """s^k [B,S] from s^0 [B,S], unit noise [B,S] and `step` [B] (Eq. 6 with the cumulative alpha it means)."""
        return self.signal[step][:, None] * clean + self.noise[step][:, None] * noise

    def denoise(self, noisy: Tensor, epsilon: Tensor, step: int, noise: Tensor) -> Tensor:
        """s^(k-1) [B,S] from s^k and the predicted noise, both [B,S], with fresh unit `noise` [B,S]."""
        clean = ((noisy - self.noise[step] * epsilon) / self.signal[step]).clamp(-self.clip, self.clip)
        return self.clean_weight[step] * clean + self.noisy_weight[step] * noisy + self.std[step] * noise
