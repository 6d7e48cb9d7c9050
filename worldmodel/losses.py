"""Averages over the real part of padded batches, without waiting for the device to count it."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where bool `mask` of the same shape is true; 0 where that is nowhere.

    Padding may hold anything, a NaN included: it reaches neither the mean nor the gradient of `values`.
    """
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp(min=1)
