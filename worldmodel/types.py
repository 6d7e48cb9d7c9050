"""The records that flow from environment to policy: typed, frozen, batch first.

Letters are those of `worldmodel.shapes`. T actions lie between T+1 states, so the last observation is never lost.
Knows torch and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

import torch
from torch import Tensor

from worldmodel.shapes import check_shape

ACTION_SLACK = 1e-5
"""How far rounding may carry an action beyond [-1, 1]."""


class TensorStruct:
    """Mixin for frozen dataclasses of tensors that share their first axis; fields may nest or be None."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Apply `fn` to every tensor and return a new record; other fields are kept."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = fn(value)
            elif isinstance(value, TensorStruct):
                changes[field.name] = value.map(fn)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every (dotted name, tensor)."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                yield field.name, value
            elif isinstance(value, TensorStruct):
                for name, tensor in value.tensors():
                    yield f"{field.name}.{name}", tensor

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor to `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def detach(self) -> Self:
        """Cut every tensor from the autograd graph."""
        return self.map(lambda tensor: tensor.detach())

    def __getitem__(self, index: Any) -> Self:
        """Index the first (batch) axis of every tensor."""
        return self.map(lambda tensor: tensor[index])

    def require_finite(self, what: str) -> Self:
        """Return self, or raise naming the first field that holds a NaN or an infinity.

        Raises:
            FloatingPointError: with the name `what`, the field and the index of the first bad value.
        """
        for name, tensor in self.tensors():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                first = torch.nonzero(~torch.isfinite(tensor))[0]
                index = [int(i) for i in first]
                raise FloatingPointError(f"{what}: {name}{index} is {tensor[tuple(index)].item()}")
        return self


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """What a model or a policy needs to know of an environment; plain numbers, so it can be written as JSON.

    An agent's observation is its own `obs_sizes[i]` numbers, zeros up to the largest agent, and, when
    `appends_agent_id`, a one-hot of length N. Its action is `action_sizes[i]` numbers in [-1, 1], then zeros.
    """

    env_id: str
    num_agents: int
    state_dim: int
    obs_sizes: tuple[int, ...]
    action_sizes: tuple[int, ...]
    episode_steps: int
    appends_agent_id: bool = False
    action_kind: Literal["continuous"] = "continuous"
    versions: tuple[tuple[str, str], ...] = ()
    """(name, version) of the simulator and the simulated body, e.g. ("mujoco", "4.0.0"), ("body", "HalfCheetah-v5")."""

    def __post_init__(self) -> None:
        """Refuse sizes that disagree with the number of agents."""
        for name in ("obs_sizes", "action_sizes"):
            if len(getattr(self, name)) != self.num_agents:
                raise ValueError(
                    f"EnvSpec.{name} = {getattr(self, name)}: expected {self.num_agents} sizes, one an agent"
                )

    @property
    def obs_dim(self) -> int:
        """O: the largest agent's observation, plus N for the agent id where it is appended."""
        return max(self.obs_sizes) + (self.num_agents if self.appends_agent_id else 0)

    @property
    def action_dim(self) -> int:
        """A: the largest agent's number of actions."""
        return max(self.action_sizes)

    def obs_mask(self) -> Tensor:
        """[N,O] bool: which entries are real, the agent id included."""
        return self.own_obs_mask() | (torch.arange(self.obs_dim) >= max(self.obs_sizes))

    def own_obs_mask(self) -> Tensor:
        """[N,O] bool: which entries are an agent's own numbers, neither padding nor an id."""
        return torch.arange(self.obs_dim) < torch.tensor(self.obs_sizes)[:, None]

    def known_obs(self) -> Tensor:
        """[N,O] what is known of every observation: ids in their place where they are appended, zeros elsewhere."""
        ids = torch.eye(self.num_agents)[:, : self.obs_dim - max(self.obs_sizes)]
        return torch.nn.functional.pad(ids, (max(self.obs_sizes), 0))

    def action_mask(self) -> Tensor:
        """[N,A] bool: which actions are real."""
        return torch.arange(self.action_dim) < torch.tensor(self.action_sizes)[:, None]


@dataclasses.dataclass(frozen=True)
class Trajectory(TensorStruct):
    """A stretch of one real episode, on the CPU: a whole episode, or the part collected since the last call.

    Shapes: `obs` [T+1,N,O], `state` [T+1,S], `action` [T,N,A] in [-1, 1], `reward` [T] (the team's, per env step,
    unscaled), `terminated` [T] and `truncated` [T] bool. Only the last step may end the episode.
    """

    obs: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    stream: int = 0
    """Which of the environments that step side by side it comes from."""
    is_start: bool = True
    """False: it goes on where the previous trajectory of its stream stopped (state[0] is that one's last state)."""
    seed: int = 0
    """The seed its episode was reset with."""

    @property
    def length(self) -> int:
        """T: number of transitions."""
        return self.action.shape[0]

    @property
    def is_open(self) -> bool:
        """True while the episode has neither terminated nor been truncated."""
        return not bool(self.terminated[-1] | self.truncated[-1])

    def validate(self, spec: EnvSpec) -> Self:
        """Check shapes against `spec`, types, and every value for finiteness; return self.

        Raises:
            ValueError: when a shape or a type disagrees, an action leaves [-1, 1], or an end lies before the last step.
            FloatingPointError: when a value is not finite.
        """
        sizes = {"N": spec.num_agents, "O": spec.obs_dim, "S": spec.state_dim, "A": spec.action_dim}
        sizes = check_shape("Trajectory.action", self.action, "T N A", **sizes)
        if self.length == 0:
            raise ValueError("a trajectory needs at least one transition")
        check_shape("Trajectory.obs", self.obs, "T+1 N O", **sizes)
        check_shape("Trajectory.state", self.state, "T+1 S", **sizes)
        for name in ("reward", "terminated", "truncated"):
            check_shape(f"Trajectory.{name}", getattr(self, name), "T", **sizes)
        for name, tensor in self.tensors():
            expected = torch.bool if name in ("terminated", "truncated") else torch.float32
            if tensor.dtype != expected:
                raise ValueError(f"Trajectory.{name} has dtype {tensor.dtype}, expected {expected}")
        if bool((self.terminated | self.truncated)[:-1].any()):
            raise ValueError("Trajectory: an episode ends before its last step; split it there")
        self.require_finite("Trajectory")
        largest = float(self.action.abs().max())
        if largest > 1 + ACTION_SLACK:
            raise ValueError(f"Trajectory.action reaches {largest:g} in magnitude, expected actions in [-1, 1]")
        return self


@dataclasses.dataclass(frozen=True)
class Segment(TensorStruct):
    """A batch of windows cut from real episodes; never crosses an episode end.

    Shapes: `obs` [B,T+1,N,O], `state` [B,T+1,S], `action` [B,T,N,A], `reward` [B,T], `terminated` [B,T] bool,
    `valid` [B,T] bool. Transition t is real where `valid[:, t]`; real transitions are contiguous. Steps before the
    episode's start (left padding) and after its end are invalid and hold zeros, states and observations included.
    State t is real where `state_valid()[:, t]`.
    """

    obs: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    valid: Tensor

    @property
    def length(self) -> int:
        """T: number of transitions."""
        return self.action.shape[1]

    def state_valid(self) -> Tensor:
        """[B,T+1] bool: which states are real. A context without any valid transition still has its last state."""
        before = torch.nn.functional.pad(self.valid, (0, 1))
        after = torch.nn.functional.pad(self.valid, (1, 0))
        real = before | after
        real[:, -1] |= ~self.valid.any(dim=1)
        return real

    def steps(self, start: int, stop: int) -> Segment:
        """The transitions start..stop-1 with the states around them."""
        return Segment(
            obs=self.obs[:, start : stop + 1],
            state=self.state[:, start : stop + 1],
            action=self.action[:, start:stop],
            reward=self.reward[:, start:stop],
            terminated=self.terminated[:, start:stop],
            valid=self.valid[:, start:stop],
        )

    @classmethod
    def from_first(cls, obs: Tensor, state: Tensor, action_dim: int, context_length: int) -> Segment:
        """The context at an episode's first step: one real state behind `context_length` steps of padding.

        Args:
            obs: [B,N,O] first observations.
            state: [B,S] first states.
            action_dim: A.
            context_length: K.
        """
        batch, agents = obs.shape[:2]
        k = context_length
        return cls(
            obs=torch.cat([obs.new_zeros(batch, k, *obs.shape[1:]), obs[:, None]], dim=1),
            state=torch.cat([state.new_zeros(batch, k, state.shape[-1]), state[:, None]], dim=1),
            action=obs.new_zeros(batch, k, agents, action_dim),
            reward=obs.new_zeros(batch, k),
            terminated=torch.zeros(batch, k, dtype=torch.bool, device=obs.device),
            valid=torch.zeros(batch, k, dtype=torch.bool, device=obs.device),
        )


@dataclasses.dataclass(frozen=True)
class Transition(TensorStruct):
    """One real step as an executing agent meets it.

    Shapes: `action` [B,N,A] that led here (zeros at an episode's first step), `obs` [B,N,O] seen now, `state` [B,S]
    or None where the global state is not available at execution, `is_first` [B] bool.
    """

    action: Tensor
    obs: Tensor
    state: Tensor | None
    is_first: Tensor


@dataclasses.dataclass(frozen=True)
class Prediction(TensorStruct):
    """One imagined step, in the environment's own units.

    Shapes: `obs` [B,N,O], `state` [B,S] or None, `reward` [B] (the team's, unscaled), `continuation` [B] in [0, 1],
    the probability that the episode does not terminate here. `uncertainty` [B], at least 0: how little the model knows
    about this very step, in a unit of its own; None where it does not say.
    """

    obs: Tensor
    state: Tensor | None
    reward: Tensor
    continuation: Tensor
    uncertainty: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class AgentView(TensorStruct):
    """What the actors and the critic see now: `actor` [B,N,F], `critic` [B,C] (training only).

    `state` [B,S]: the global state in the environment's units, for actors that are fed with it; None where a model has
    none.
    """

    actor: Tensor
    critic: Tensor
    state: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class ImaginedRollout(TensorStruct):
    """Rollouts of a policy inside a world model.

    Shapes: `actor_view` [B,H+1,N,F], `critic_view` [B,H+1,C], `action` [B,H,N,A] as sampled (before clipping to
    [-1, 1]), `log_prob` [B,H,N] summed over the agent's real action dimensions, `reward` [B,H],
    `continuation` [B,H]. Where the model's uncertainty is watched: `uncertainty` [B,H], `penalty` [B,H], what was taken
    off `reward` for it, and `known` [B,H] bool, the steps to learn from, the first ones of each rollout; None: all.
    Steps that are not known hold nothing: zeros, continuation 1, and the last known view again.
    """

    actor_view: Tensor
    critic_view: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    continuation: Tensor
    uncertainty: Tensor | None = None
    penalty: Tensor | None = None
    known: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class LossOutput:
    """The loss of one update, a scalar with gradient, and detached scalar tensors worth logging by name."""

    loss: Tensor
    metrics: dict[str, Tensor]
