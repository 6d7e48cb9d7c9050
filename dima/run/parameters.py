"""The weights of models and policies: how many there are, and loading them with a word on what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from worldmodel.config import ConfigError

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


def require_parts(model: Any) -> None:
    """Refuse a model that has weights and no parts that train them; one that has neither is taken as it is.

    Raises:
        ConfigError: saying what is missing.
    """
    count = num_parameters({"model": model})["model"]
    if count > 0 and not model.parts():
        raise ConfigError(
            f"{type(model).__name__}.parts() is empty, so nothing would train its {count:,} parameters; it has to"
            " return every TrainablePart by name"
        )


def num_parameters(modules: Mapping[str, torch.nn.Module]) -> dict[str, int]:
    """Trainable parameters of each of `modules`."""
    return {name: sum(p.numel() for p in module.parameters() if p.requires_grad) for name, module in modules.items()}


def describe_parameters(modules: Mapping[str, torch.nn.Module]) -> str:
    """The numbers of trainable parameters, in words."""
    return ", ".join(f"{name} {number:,}" for name, number in num_parameters(modules).items()) or "none"
