"""Small building blocks that policies, critics and world models share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


def mlp(
    sizes: Sequence[int], *, activation: str = "relu", layer_norm: bool = False, activate_last: bool = False
) -> nn.Sequential:
    """Linear layers from `sizes[0]` to `sizes[-1]`, each but the last followed by activation and, if asked, LayerNorm.

    Args:
        sizes: input size, hidden sizes, output size.
        activation: a key of `ACTIVATIONS`.
        layer_norm: put a LayerNorm after each activation.
        activate_last: treat the last layer like the others, for a trunk that heads stand on.

    Raises:
        ValueError: for an unknown activation or fewer than two sizes.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: expected one of {', '.join(ACTIVATIONS)}")
    if len(sizes) < 2:
        raise ValueError(f"sizes {list(sizes)}: expected at least an input and an output size")
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for i, (size_in, size_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers.append(nn.Linear(size_in, size_out))
        if i < last or activate_last:
            layers.append(ACTIVATIONS[activation]())
            if layer_norm:
                layers.append(nn.LayerNorm(size_out))
    return nn.Sequential(*layers)


def orthogonal_init(module: nn.Module, gain: float = math.sqrt(2)) -> None:
    """Give every linear layer in `module` orthogonal weights of this gain and zero biases. Mutates `module`.

    The usual initialisation of on-policy actors and critics; sqrt(2) suits ReLU.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
