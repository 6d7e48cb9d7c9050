"""The model under test, and how it is played with: contexts, actions and real steps made up for its environment.

A model's carry is opaque: what counts is what the model shows and predicts from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from worldmodel.contract.random_data import (
    random_action,
    random_segment,
    random_trajectory,
    random_transition,
    stir,
)
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, Segment, TensorStruct, Transition

BATCH = 5


class BrokenContract(AssertionError):
    """A world model does not keep the contract; says in which point."""


def require(kept: bool | Tensor, message: str) -> None:
    """Go on only where `kept` is true.

    Raises:
        BrokenContract: with `message`.
    """
    if not kept:
        raise BrokenContract(message)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model under test."""

    build: Callable[[], WorldModel[Any]]
    """A freshly initialised model, its weights drawn from torch's default generator."""
    spec: EnvSpec
    stochastic: bool = True
    """False for a model that predicts the same whatever it draws."""
    dead_parameters: tuple[str, ...] = ()
    """Parameters that this configuration leaves without a gradient, on purpose: names, or those of whole modules."""

    @property
    def learns(self) -> bool:
        """False for a model without parameters: nothing is asked of its training."""
        return any(True for _ in cast("nn.Module", self.model()).parameters())

    def is_dead(self, parameter: str) -> bool:
        """Whether `parameter` is said to be without a gradient, by its own name or its module's."""
        return any(parameter == name or parameter.startswith(f"{name}.") for name in self.dead_parameters)

    def model(self, seed: int = 0) -> WorldModel[Any]:
        """A model that looks trained, in evaluation mode: no parameter is zero, and it has seen an episode."""
        torch.manual_seed(seed)
        model = self.build()
        stir(cast("nn.Module", model), seed)
        model.update_statistics(random_trajectory(self.spec, 30, seeded(seed)))
        model.train(False)
        return model


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def make_context(model: WorldModel[Any], spec: EnvSpec, seed: int = 1, batch: int = BATCH) -> Segment:
    """K transitions a row; row i lacks the first i of them, as at the start of an episode."""
    length = model.context_length
    missing = torch.arange(batch).clamp(max=length)
    valid = torch.arange(length) >= missing[:, None]
    return random_segment(spec, batch, length, seeded(seed), valid)


def make_actions(spec: EnvSpec, steps: int, seed: int = 2, batch: int = BATCH) -> list[Tensor]:
    """Joint actions [B,N,A] of `steps` steps."""
    g = seeded(seed)
    return [random_action(spec, batch, g) for _ in range(steps)]


def make_transition(spec: EnvSpec, seed: int = 3, *, first: bool = False, batch: int = BATCH) -> Transition:
    """One real step in every row."""
    return random_transition(spec, batch, seeded(seed), torch.full((batch,), first))


@torch.no_grad()
def roll_out(model: WorldModel[Any], state: Any, actions: list[Tensor], seed: int = 4) -> dict[str, Tensor]:
    """All that is seen and predicted on the way, by name, the present view included."""
    g = seeded(seed)
    seen = dict(named("view", model.view(state)))
    for i, action in enumerate(actions):
        state, prediction = model.step(state, action, generator=g)
        seen |= named(f"prediction {i + 1}", prediction)
        seen |= named(f"view {i + 1}", model.view(state))
    return seen


def named(what: str, record: TensorStruct) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every tensor in `record`."""
    return ((f"{what}: {name}", tensor) for name, tensor in record.tensors())


def first_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor], rows: Any = slice(None)) -> str | None:
    """The name of the first tensor that is not the same in `rows`, to the bit; None if all are. NaNs are equal."""
    require(one.keys() == other.keys(), f"one call gives {list(one)}, the next {list(other)}")
    return next((name for name in one if not same(one[name][rows], other[name][rows])), None)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether both are equal to the bit, NaNs in the same places included: those are what `finite` is for."""
    if torch.equal(one, other):
        return True
    if one.shape != other.shape or not one.is_floating_point():
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def choose(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`one` where `mask` is true, else `other`; the mask has their leading axes."""
    return torch.where(mask.reshape(*mask.shape, *[1] * (one.dim() - mask.dim())), one, other)


def start(model: WorldModel[Any], spec: EnvSpec, seed: int = 1, batch: int = BATCH) -> Any:
    """The carry for random contexts."""
    return model.start(make_context(model, spec, seed, batch), generator=seeded(5))
