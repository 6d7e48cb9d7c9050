"""The denoiser for sampling: what the noise level does not change is computed once an imagined step.

Two things leave the loop over noise levels: what the past states add to the first convolution, and, once for each
distinct mask of actions, the condition's first layer. Neighbouring linear layers are merged when weights are copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.conditioning import PerceiverActionEncoder
from dima.denoiser import Denoiser
from dima.fast.convolution import packed, position_major
from dima.fast.unet import PackedUnet, modulated

PERCEIVER_ROWS = 16
"""At 32 latents of 4096 numbers each, and two masks, more rows than this leave a cache of some megabytes (measured)."""


class _Past(NamedTuple):
    """What past states add, whatever the noise level."""

    first: Tensor
    """[B, L*C] to the first convolution."""
    mean: Tensor | None
    """[B,S] to the bypass's mean."""


class _Level(NamedTuple):
    """What one noise level adds: EDM's factors, and the hidden layer that the modulation is made of."""

    c_in: Tensor
    skip: Tensor
    """c_skip, or [S] with the bypass's gain of x in it."""
    c_out: Tensor
    hidden: Tensor
    """[B,D]."""
    gain_mean: Tensor | None
    """[S] of the bypass, times c_out."""
    mean: Tensor | None
    """[B,S] what visible actions add to the bypass's mean."""


class PackedDenoiser:
    """Keeps `dima.sampler.ConditionedDenoiser` with rearranged copies of a `Denoiser`'s weights.

    Args:
        denoiser: the network; its action encoder is used as it is, so it must not be trained between two packings.
        dtype: of the U-Net's weights and activations. States, noise and EDM's factors stay in float32.
        compiled: whether one noise level goes through torch.compile.
    """

    def __init__(self, denoiser: Denoiser, dtype: torch.dtype = torch.float32, *, compiled: bool = False) -> None:
        self.sigma_data = denoiser.sigma_data
        self.dtype = dtype
        self._denoiser = denoiser
        self._run = _compiled_denoise() if compiled else _denoise
        self.length = denoiser.conv_in.in_length
        first, last = denoiser.condition[0], denoiser.condition[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        self._first, self._first_bias = packed(first.weight.t(), torch.float32), packed(first.bias, torch.float32)
        self.unet = PackedUnet(denoiser.unet, last, dtype)
        self._pack_ends(denoiser)

    def _pack_ends(self, denoiser: Denoiser) -> None:
        """The first and the last convolution, of which only a part sees the noisy state or is read."""
        into, bias = position_major(denoiser.conv_in)
        state_dim = into.shape[0] // self.length
        past, noisy = into[:-state_dim], into[-state_dim:]
        if denoiser.config.scale_context:
            past = past / denoiser.sigma_data
        # A kernel of 3 carries the last position to itself and to the one before it.
        self.reached = 2 * (into.shape[1] // self.length)
        self._past, self._past_bias = packed(past, self.dtype), packed(bias, self.dtype)
        self.noisy = packed(noisy[:, -self.reached :], self.dtype)
        out, bias = position_major(denoiser.conv_out)
        self.out = packed(out[-self.reached :, -state_dim:], self.dtype)
        self.out_bias = packed(bias[-state_dim:], self.dtype)
        norm = denoiser.norm_out
        self.norm = packed(norm.weight[None], self.dtype), packed(norm.bias[None], self.dtype)

    def frozen(self) -> AbstractContextManager[None]:
        """The stretch in which weights stay as they are: always, for copies."""
        return nullcontext()

    @torch.inference_mode()
    def embed_context(self, context: Tensor) -> _Past:
        """What the past states [B,K+1,S] add."""
        first = torch.addmm(self._past_bias, context.flatten(1).to(self.dtype), self._past)
        bypass = self._denoiser.bypass
        return _Past(first, None if bypass is None else bypass.mean_of_state(context))

    @torch.inference_mode()
    def modulation(
        self, sigma: Tensor, past_action: Tensor, action: Tensor, visible: Tensor, level: Tensor
    ) -> list[_Level]:
        """The conditioning of J noise levels; arguments as `Denoiser.modulation`, with `sigma` [J,1]."""
        denoiser = self._denoiser
        factors = denoiser.precondition(sigma[:, 0])
        features = denoiser.noise_features(factors.c_noise)
        noise = torch.addmm(self._first_bias, features, self._first)  # [J, D]
        with torch.autocast(action.device.type, self.dtype, enabled=self.dtype != torch.float32):
            embedded = self._embed(past_action, action, visible)
        actions = embedded.float() @ self._first  # [M, B, D]
        hidden = functional.silu(actions[level] + noise[:, None]).to(self.dtype)
        skip, gain_mean, mean = factors.c_skip, [None] * len(level), [None] * len(level)
        if denoiser.bypass is not None:
            gain_x, gain_mean = denoiser.bypass.noise_gains(features, factors.c_out)
            c_out = factors.c_out[:, None]
            skip, gain_mean = skip[:, None] + c_out * factors.c_in[:, None] * gain_x, c_out * gain_mean
            mean = denoiser.bypass.mean_of_actions(action, visible)[level]
        columns = zip(factors.c_in, skip, factors.c_out, hidden, gain_mean, mean, strict=True)
        return [_Level(*one) for one in columns]

    def _embed(self, past_action: Tensor, action: Tensor, visible: Tensor) -> Tensor:
        """The action encoder's output [M,B,D]; the large one's a few rows at a time on a CPU, to stay in its cache."""
        encoder = self._denoiser.action_encoder
        if action.device.type != "cpu" or not isinstance(encoder, PerceiverActionEncoder):
            return encoder.pool(encoder.tokens(past_action, action), visible)
        rows = zip(past_action.split(PERCEIVER_ROWS), action.split(PERCEIVER_ROWS), strict=True)
        return torch.cat([encoder.pool(encoder.tokens(*row), visible) for row in rows], dim=1)

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: Tensor, context: _Past, modulation: _Level) -> Tensor:
        """D for noisy x [B,S], with `context` from `embed_context` and one level of `modulation`."""
        return self._run(self, x, context, modulation)


def _denoise(twin: PackedDenoiser, x: Tensor, past: _Past, level: _Level) -> Tensor:
    h = past.first.clone()
    h[:, -twin.reached :].addmm_((level.c_in * x).to(twin.dtype), twin.noisy)
    h = twin.unet(h, level.hidden)
    h = modulated(h, twin.length, *twin.norm)
    output = torch.addmm(twin.out_bias, h[:, -twin.reached :], twin.out).to(x.dtype)
    denoised = level.skip * x + level.c_out * output
    if past.mean is None or level.mean is None or level.gain_mean is None:
        return denoised
    return denoised + level.gain_mean * (past.mean + level.mean)


@functools.cache
def _compiled_denoise() -> Callable[..., Tensor]:
    """Compiled once for all packings: what comes and goes are tensors, and those it takes as arguments."""
    return torch.compile(_denoise, dynamic=False)
