"""What a model hands back, held against the records of `worldmodel.types`: type, sizes, float32 and range."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from worldmodel.contract.subject import BrokenContract, require
from worldmodel.protocol import WorldModel
from worldmodel.shapes import check_shape
from worldmodel.types import AgentView, EnvSpec, Prediction, TensorStruct


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse what is not a `kind`, by its type."""
    require(isinstance(value, kind), f"{name} is a {type(value).__name__}: expected a {kind.__name__}")


def check_carry(state: object, after: str) -> None:
    """Refuse a carry that is no frozen record of tensors."""
    check_kind(f"the carry after {after}", state, TensorStruct)
    require(dataclasses.is_dataclass(state), f"the carry after {after}, {type(state).__name__}, is not a dataclass")


def check_step(result: object) -> None:
    """Refuse what is not a pair of carry and prediction."""
    pair = isinstance(result, tuple) and len(result) == 2
    require(pair, f"step returns a {type(result).__name__}: expected (carry, Prediction)")


def check_view(model: WorldModel[Any], spec: EnvSpec, view: AgentView, after: str, batch: int) -> None:
    """The view of `batch` rows has the sizes that the model announces."""
    check_kind(f"view after {after}", view, AgentView)
    sizes = {"B": batch, "N": spec.num_agents, "F": model.actor_dim, "C": model.critic_dim, "S": spec.state_dim}
    for name, pattern in (("actor", "B N F"), ("critic", "B C"), ("state", "B S")):
        if getattr(view, name) is not None or name != "state":
            check_tensor(f"view after {after}: {name}", getattr(view, name), pattern, sizes)


def check_prediction(spec: EnvSpec, prediction: Prediction, batch: int, what: str = "prediction") -> None:
    """The prediction for `batch` rows has the sizes of the environment; probabilities and uncertainties are such."""
    check_kind(what, prediction, Prediction)
    sizes = {"B": batch, "N": spec.num_agents, "O": spec.obs_dim, "S": spec.state_dim}
    for name, pattern in (
        ("obs", "B N O"),
        ("state", "B S"),
        ("reward", "B"),
        ("continuation", "B"),
        ("uncertainty", "B"),
    ):
        if getattr(prediction, name) is not None or name not in ("state", "uncertainty"):
            check_tensor(f"{what}: {name}", getattr(prediction, name), pattern, sizes)
    _check_range(f"{what}: continuation", prediction.continuation, 1.0, "probabilities in [0, 1]")
    if prediction.uncertainty is not None:
        _check_range(f"{what}: uncertainty", prediction.uncertainty, torch.inf, "at least 0")


def _check_range(name: str, tensor: Tensor, most: float, expected: str) -> None:
    """Refuse values outside [0, `most`], naming the one furthest off; NaNs are for another check."""
    for value in (tensor.detach().min().item(), tensor.detach().max().item()):
        require(not (value < 0 or value > most), f"{name} reaches {value:.4g}: expected {expected}")


def check_tensor(name: str, tensor: object, pattern: str, sizes: dict[str, int]) -> None:
    """Refuse what is no float32 tensor with the axes of `pattern`."""
    if not isinstance(tensor, Tensor):
        raise BrokenContract(f"{name} is a {type(tensor).__name__}: expected a Tensor")
    try:
        check_shape(name, tensor, pattern, **sizes)
    except ValueError as error:
        raise BrokenContract(str(error)) from error
    require(tensor.dtype == torch.float32, f"{name} is {tensor.dtype}: expected torch.float32")
