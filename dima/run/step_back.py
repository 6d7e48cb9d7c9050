"""Keeping as much of a module's step as a test allows: its weights go back towards where they were, by halves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHARES = (1.0, 0.5, 0.25, 0.125)
"""Of the step, tried in this order; after them none of it is left."""


@torch.no_grad()
def step_back(module: nn.Module, before: dict[str, Tensor], is_good: Callable[[], bool]) -> float:
    """Move `module` along the line from `before` to where it is, to the farthest of `SHARES` where `is_good()`.

    Weights between a fine-tuned model's and those it began with often serve both tasks (WiSE-FT, arXiv 2109.01903);
    the halving is a backtracking line search's.

    Args:
        module: mutated in place; entries of its state that are not floating-point stay as they are.
        before: what `copy_state` gave before the step.
        is_good: asked with the module at each place.

    Returns:
        The share of the step that was kept; 0: the module is as it was.
    """
    after = copy_state(module)
    for share in SHARES:
        _place(module, before, after, share)
        if is_good():
            return share
    _place(module, before, after, 0.0)
    return 0.0


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of `module`, copied."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _place(module: nn.Module, before: dict[str, Tensor], after: dict[str, Tensor], share: float) -> None:
    for name, tensor in module.state_dict().items():  # its tensors are the module's own
        if tensor.is_floating_point():
            # The ends exactly, which lerp gives at 0 and 1 alike: a step that is kept whole costs no bit.
            tensor.copy_(torch.lerp(before[name], after[name], share))
