"""The weights of models and policies: how many there are, and loading them with a word on what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

_LONGEST = 300
"""Characters of torch's explanation that are shown."""


def load_weights(load: Callable[[], object]) -> None:
    """Call `load`, and say so where what was saved does not fit what config.yaml describes.

    Raises:
        ValueError: when weights have other names or sizes.
    """
    try:
        load()
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if len(text) > _LONGEST:  # torch lists every weight
            text = f"{text[:_LONGEST]} .."
        raise ValueError(f"the checkpoint does not fit the model that config.yaml describes: {text}") from error


def num_parameters(modules: Mapping[str, torch.nn.Module]) -> dict[str, int]:
    """Trainable parameters of each of `modules`."""
    return {name: sum(p.numel() for p in module.parameters() if p.requires_grad) for name, module in modules.items()}


def describe_parameters(modules: Mapping[str, torch.nn.Module]) -> str:
    """The numbers of trainable parameters, in words."""
    return ", ".join(f"{name} {number:,}" for name, number in num_parameters(modules).items()) or "none"
