"""Saving what an agent carries from step to step, and putting it back, without knowing what it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from worldmodel.types import TensorStruct


def carry_tensors(carry: Any) -> dict[str, Tensor]:
    """Copies of the tensors in `carry` by dotted name, on the CPU; `TypeError` if it is no `TensorStruct` (or None)."""
    if carry is None:
        return {}
    if not isinstance(carry, TensorStruct):
        raise TypeError(
            f"an agent's carry of type {type(carry).__name__} cannot be saved; expected None or a TensorStruct"
        )
    return {name: tensor.detach().cpu().clone() for name, tensor in carry.tensors()}


def fill_carry(carry: Any, saved: dict[str, Tensor]) -> Any:
    """The saved tensors in the structure of `carry`, on its devices; `ValueError` when names or shapes disagree."""
    fresh = carry_tensors(carry)
    described = {name: list(tensor.shape) for name, tensor in fresh.items()}
    expected = {name: list(tensor.shape) for name, tensor in saved.items()}
    if described != expected:
        raise ValueError(f"the saved carry of the agent holds {expected}, but this agent begins with {described}")
    if carry is None:
        return None
    names = iter(fresh)  # `map` visits tensors in the order of `tensors`
    return carry.map(lambda tensor: saved[next(names)].to(tensor.device, tensor.dtype))
