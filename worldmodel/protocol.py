"""The contract: what a world model, its trainable parts, an agent and a state inferencer must offer.

Whatever keeps `WorldModel` trains policies in `imagination`, is fitted by `dima train` and measured like any other.
State and randomness go in as arguments and come out as results; nothing is hidden between calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from worldmodel.config import OptimConfig
from worldmodel.types import AgentView, EnvSpec, LossOutput, Prediction, Segment, TensorStruct, Trajectory, Transition

StateT = TypeVar("StateT", bound=TensorStruct)
CarryT = TypeVar("CarryT")


class TrainablePart(nn.Module, ABC):
    """A module with its own optimiser and its own batches."""

    segment_length: int
    """T: transitions in a training segment, at least 1."""
    burn_in: int
    """Transitions at a segment's start that are context only; the sampled transition lies behind them."""
    optim: OptimConfig
    independent: bool = False
    """True: neither reads weights that other parts train nor is read by them, and draws from `generator` alone. Such a
    part may be trained at the same time as others."""

    @abstractmethod
    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """The loss on `segment` [B,T], averaged over valid targets; noise is drawn from `generator`.

        Dropout may draw from torch's default generator instead, which a run saves and restores as well; that of an
        `independent` part may not.
        """


class WorldModel(Protocol[StateT]):
    """A learned multi-agent environment. Implementations are `nn.Module`s; StateT is opaque to every caller."""

    context_length: int
    """K: real transitions that `start` reads (0: the current observation is enough)."""
    actor_dim: int
    """F: what one actor sees."""
    critic_dim: int
    """C: what the critic sees."""
    decentralized: bool
    """True if agent i's actor view at execution uses only agent i's own history."""

    def parts(self) -> Mapping[str, TrainablePart]:
        """The modules to train, by name, in the order in which they are trained."""
        ...

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb new real data into running statistics (normalisation). Mutates the model's buffers."""
        ...

    def start(self, context: Segment, *, generator: torch.Generator) -> StateT:
        """The carry for B rollouts from real data: `context` has K transitions; its last state is where to start."""
        ...

    def step(self, state: StateT, action: Tensor, *, generator: torch.Generator) -> tuple[StateT, Prediction]:
        """One imagined transition under the joint `action` [B,N,A] in [-1, 1], sampled with `generator`."""
        ...

    def observe(self, state: StateT, transition: Transition, *, generator: torch.Generator) -> StateT:
        """Absorb one real step; rows with `is_first` forget what came before."""
        ...

    def view(self, state: StateT) -> AgentView:
        """What actors and critic see in `state`."""
        ...

    # The part of nn.Module that callers rely on.
    training: bool
    """Whether dropout and the like are on."""

    def state_dict(self) -> dict[str, Any]:
        """All parameters and buffers, running statistics included."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore what `state_dict` gave."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch dropout and the like."""
        ...

    def to(self, device: torch.device) -> Any:
        """Move parameters and buffers."""
        ...


@runtime_checkable
class OrderedWorldModel(Protocol):
    """A world model that takes in the agents' current actions one after the other: in which order is said at sampling.

    Optional: evaluation compares orders where a model offers them.
    """

    def with_order(self, order: str | tuple[int, ...]) -> WorldModel[Any]:
        """The same weights, sampled with the agents in another order; nothing of this model changes.

        Raises:
            ConfigError: when there is no such order for this number of agents and sampling steps.
        """
        ...

    def without_actions(self) -> WorldModel[Any]:
        """The same weights, sampled with every agent's current action hidden; past actions stay visible."""
        ...


@runtime_checkable
class StateDecoding(Protocol):
    """A world model that computes observations from global states: how well it does so is a floor of its errors."""

    def decode_states(self, state: Tensor) -> Tensor:
        """Observations [B,N,O] for global states [B,S], both in the environment's units."""
        ...


def reports_uncertainty(model: object) -> bool:
    """Whether none of the model's predictions leaves `Prediction.uncertainty` out; its `reports_uncertainty` says so.

    Known before anything has been imagined. A model without that attribute does not report.
    """
    return getattr(model, "reports_uncertainty", False) is True


Precision = Literal["float32", "bfloat16"]


@runtime_checkable
class Accelerable(Protocol):
    """A world model that knows a faster way to imagine. Optional; whoever has none is used as it is."""

    def accelerated(self, precision: Precision = "float32", *, compiled: bool = False) -> WorldModel[Any]:
        """A model that imagines as this one does now, up to rounding.

        It may copy some weights and share others: whoever trains this model or changes its statistics asks anew.

        Args:
            precision: of weights and activations while imagining, where the model's networks allow another.
            compiled: pass what is called most through torch.compile, which takes long at first.
        """
        ...


class WorldModelConfig(Protocol):
    """What `world_model._target_` names: a frozen config that builds its model for an environment."""

    def build(self, spec: EnvSpec) -> WorldModel[Any]:
        """A freshly initialised model; weights are drawn from torch's default generator, which the caller seeds."""
        ...


class Learnable(Protocol):
    """What can be fitted to real episodes: world models, and state inferencers that learn. An `nn.Module`."""

    def parts(self) -> Mapping[str, TrainablePart]:
        """The modules to train, by name."""
        ...

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb new real data into running statistics (normalisation). Mutates buffers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All parameters and buffers, running statistics included."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore what `state_dict` gave."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch dropout and the like."""
        ...

    def to(self, device: torch.device) -> Any:
        """Move parameters and buffers."""
        ...


class InferenceConfig(Protocol):
    """What `inference._target_` names: a frozen config that builds its state inferencer for an environment."""

    def build(self, spec: EnvSpec) -> Any:
        """A fresh `StateInference`; one that learns is a `Learnable` too."""
        ...


class Agent(Protocol[CarryT]):
    """Acts in the real world; collectors and evaluation know nothing else of policies."""

    def begin(self, obs: Tensor, state: Tensor) -> CarryT:
        """The carry for B environments that have just been reset: `obs` [B,N,O], `state` [B,S]."""
        ...

    def act(self, carry: CarryT, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, CarryT]:
        """Actions [B,N,A] in [-1, 1] for what is seen now; rows with `is_first` [B] forget what came before.

        `state` [B,S] is there for agents that are allowed to see it; a decentralised agent ignores it.
        """
        ...


Auxiliary = Literal["own", "joint"]
"""What a state is inferred from: an agent's own observations, or those of all agents, who then must communicate."""


@runtime_checkable
class StateInference(Protocol):
    """Infers the global state from what an agent may see. State and randomness are arguments, as everywhere."""

    auxiliary: Auxiliary
    """Whose observations it reads; whatever others observed cannot change the result of an `own` one by a bit."""
    history_steps: int
    """m: how many observations before the present one it reads."""

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """Draw [M,B,S] plausible states in the environment's units, M = `num_samples`.

        Args:
            history: [B,m+1,N,O] observations, the present one last; before an episode's start its first one stands.
            num_samples: M.
            generator: where all chance comes from.
            agent: [B] who infers, numbers from 0; needed where `auxiliary` is `own`.
            state: [B,S] the true state; only an oracle reads it.

        Raises:
            ValueError: for a history of another shape, an unknown agent, or none where one is needed.
            FloatingPointError: when an observation is not finite; names which.
        """
        ...
