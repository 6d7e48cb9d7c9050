"""Draws from categorical distributions, with all chance from one generator."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_token(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One number [*] a row from softmax(logits / temperature), logits [*,V], by inverting the cumulative distribution.

    Takes one uniform number a row from `generator`; a temperature of 0 takes none and gives the most probable number.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.rand(cumulative[..., :1].shape, generator=generator, device=logits.device)
    # Rounding may leave the last sum beside 1, so it is the measure.
    number = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True)
    return number[..., 0].clamp(max=logits.shape[-1] - 1)
