"""Real episodes: several environments step side by side, an `Agent` acts for all of them at once.

Runs in this process; made from a picklable config and a seed, and picklable itself, so that it can move to another.
Knows nothing of policies or world models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.base import EnvConfig, MultiAgentEnv
from envs.carry import carry_tensors, fill_carry
from envs.stream import EpisodeSummary, Stream
from envs.vector import Row, build_vector
from worldmodel.protocol import Agent
from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec, Trajectory


class Collector:
    """Steps `num_envs` environments of one kind. What happens is a pure function of `seed` and the agent's actions.

    Args:
        make_env: an env config, or a function that makes one environment.
        num_envs: B, environments that step side by side; each is a stream with episodes and seeds of its own.
        seed: of the run; the seed of each episode follows from it, the stream and the episode's number.
        first_stream: the number of its first stream, where several collectors share the streams of one run.
    """

    def __init__(
        self, make_env: EnvConfig | Callable[[], MultiAgentEnv], num_envs: int, seed: int, first_stream: int = 0
    ) -> None:
        for name, number, least in (("num_envs", num_envs, 1), ("seed", seed, 0), ("first_stream", first_stream, 0)):
            if number < least:
                raise ValueError(f"{name} = {number}: expected at least {least}")
        self._make_env = make_env
        self._seed = seed
        self._vector = build_vector(make_env, num_envs)
        self._first_stream = first_stream
        self._streams = [Stream(Row(self._vector, row), seed, first_stream + row) for row in range(num_envs)]
        self._action_mask = self.spec.action_mask()
        self._carry: Any = None
        self._carry_owner: str | None = None
        self._saved_carry: dict[str, Tensor] | None = None
        self.episodes: tuple[EpisodeSummary, ...] = ()
        """The episodes that ended during the latest `collect`, in the order in which they ended."""

    @property
    def spec(self) -> EnvSpec:
        """What the environments promise."""
        return self._vector.spec

    @property
    def num_envs(self) -> int:
        """Environments that step side by side."""
        return len(self._streams)

    @property
    def episode_returns(self) -> list[float]:
        """Returns of the episodes that ended during the latest `collect`."""
        return [episode.return_ for episode in self.episodes]

    def collect(
        self, agent: Agent[Any], *, num_steps: int | None = None, num_episodes: int | None = None
    ) -> list[Trajectory]:
        """Let `agent` act for exactly `num_steps` env steps, or until `num_episodes` episodes have ended.

        Both count over all environments. Counting steps, episodes go on from call to call: a chunk whose `is_start` is
        False continues the last one of its stream. Counting episodes, each stream plays its equal share (the first
        streams one more where it does not divide), so short episodes are not preferred; an episode left open by an
        earlier call is finished and counts.

        Args:
            agent: acts on the CPU tensors it is given. Its carry lives on from call to call, for as long as agents are
                of one class; another class begins anew.
            num_steps: a multiple of `num_envs`.
            num_episodes: at least 1.

        Returns:
            Trajectories in the order in which episodes ended, then the open ones; within a stream in order of time.

        Raises:
            ValueError: unless exactly one number is given, or when the agent's actions are out of shape or range.
            FloatingPointError: when an action is not finite.
            EnvError: when an environment breaks its contract.
        """
        remaining = self._shares(num_steps, num_episodes)
        trajectories: list[Trajectory] = []
        episodes: list[EpisodeSummary] = []
        while any(remaining):
            active = [row for row, left in enumerate(remaining) if left]
            action = self._act(agent, [self._streams[row] for row in active])
            results = self._vector.step(active, action[active])
            for row, result in zip(active, results, strict=True):
                stream = self._streams[row]
                summary = stream.record(action[row], result)
                if num_steps is not None or summary is not None:
                    remaining[row] -= 1
                if summary is not None:
                    episodes.append(summary)
                    trajectories += _taken(stream)
        self.episodes = tuple(episodes)
        return trajectories + [trajectory for stream in self._streams for trajectory in _taken(stream)]

    def state_dict(self) -> dict[str, Any]:
        """Where every environment and the agent's carry stand: tensors and plain values, in one flat dict.

        Raises:
            TypeError: when the agent's carry is neither None nor a `TensorStruct`.
        """
        state: dict[str, Any] = {**self._identity(), "carry_owner": self._carry_owner}
        for stream in self._streams:
            state |= {f"streams/{stream.index}/{name}": value for name, value in stream.state_dict().items()}
        carry = self._saved_carry if self._saved_carry is not None else carry_tensors(self._carry)
        return state | {f"carry/{name}": tensor for name, tensor in carry.items()}

    def load_state_dict(self, state: Mapping[str, Any], agent: Agent[Any] | None = None) -> None:
        """Return to where `state_dict` was called, by repeating the actions of the open episodes.

        Args:
            state: what `state_dict` gave.
            agent: the agent whose carry was saved. Its `begin` gives the structure into which the carry is put: now if
                it is given here, else at the next `collect`. Where `begin` draws random numbers, give it here and
                restore the generators afterwards.

        Raises:
            ValueError: when `state` belongs to another environment, seed, number of environments or agent.
            EnvError: when an environment does not repeat itself.
        """
        state = {"first_stream": 0, **state}  # older states do not say it
        for name, now in self._identity().items():
            if state[name] != now:
                raise ValueError(
                    f"a collector with {name} = {now!r} cannot go on from one with {name} = {state[name]!r}"
                )
        for stream in self._streams:
            stream.load_state_dict(_under(f"streams/{stream.index}/", state))
        self._carry, self._carry_owner = None, state["carry_owner"]
        self._saved_carry = _under("carry/", state) if self._carry_owner is not None else None
        self.episodes = ()
        if agent is not None and self._carry_owner == _class_name(agent):
            self._carry = self._begin(agent, *self._seen())

    def close(self) -> None:
        """Close every environment."""
        self._vector.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "arguments": (self._make_env, self.num_envs, self._seed, self._first_stream),
            "state": self.state_dict(),
            "episodes": self.episodes,
        }

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self.__init__(*pickled["arguments"])
        self.load_state_dict(pickled["state"])
        self.episodes = pickled["episodes"]

    def _identity(self) -> dict[str, Any]:
        """What a saved state must agree with."""
        sizes = {"num_envs": self.num_envs, "first_stream": self._first_stream}
        return {"env_id": self.spec.env_id, "seed": self._seed, **sizes}

    def _shares(self, num_steps: int | None, num_episodes: int | None) -> list[int]:
        """How many steps (or episodes) each stream has to take."""
        if (num_steps is None) == (num_episodes is None):
            raise ValueError(f"num_steps = {num_steps}, num_episodes = {num_episodes}: expected exactly one of them")
        number = num_steps if num_steps is not None else num_episodes
        assert number is not None
        if number < 1:
            raise ValueError(f"collect: asked for {number} steps or episodes, expected at least 1")
        share, left = divmod(number, self.num_envs)
        if num_steps is not None and left:
            raise ValueError(f"num_steps = {num_steps}: expected a multiple of num_envs = {self.num_envs}")
        return [share + (index < left) for index in range(self.num_envs)]

    def _act(self, agent: Agent[Any], active: list[Stream]) -> np.ndarray:
        """Actions [B,N,A] for all streams, of which the `active` ones are in an episode; begins theirs where needed."""
        for stream in active:
            if not stream.is_open:
                stream.begin()
        obs, state = self._seen()
        is_first = torch.tensor([stream.is_first for stream in self._streams])
        if self._carry_owner != _class_name(agent):
            self._saved_carry, self._carry_owner = None, _class_name(agent)
            self._carry = self._begin(agent, obs, state)
            is_first = torch.ones_like(is_first)  # to a new agent every episode begins here
        elif self._saved_carry is not None:
            self._carry = self._begin(agent, obs, state)
        with torch.no_grad():
            action, self._carry = agent.act(self._carry, obs, state, is_first)
        return self._checked(action, _class_name(agent))

    def _seen(self) -> tuple[Tensor, Tensor]:
        """What every stream shows now: obs [B,N,O] and state [B,S]."""
        obs = torch.from_numpy(np.stack([stream.observed.obs for stream in self._streams]))
        state = torch.from_numpy(np.stack([stream.observed.state for stream in self._streams]))
        return obs, state

    def _begin(self, agent: Agent[Any], obs: Tensor, state: Tensor) -> Any:
        """The agent's carry: a new one, or the saved one in the structure of a new one."""
        with torch.no_grad():
            carry = agent.begin(obs, state)
        if self._saved_carry is not None:
            carry = fill_carry(carry, self._saved_carry)
            self._saved_carry = None
        return carry

    def _checked(self, action: Tensor, agent_name: str) -> np.ndarray:
        spec = self.spec
        check_shape(f"action of {agent_name}", action, "B N A", B=self.num_envs, N=spec.num_agents, A=spec.action_dim)
        action = action.detach().to("cpu", torch.float32)
        if not bool(torch.isfinite(action).all()):
            row, player, index = torch.nonzero(~torch.isfinite(action))[0].tolist()
            raise FloatingPointError(
                f"action of {agent_name}: entry {index} of agent {player} in stream {self._streams[row].index} is "
                f"{action[row, player, index].item()}"
            )
        largest = float(action.abs().max())
        if largest > 1.0 + 1e-5:  # beyond what rounding does to a clipped action
            raise ValueError(
                f"action of {agent_name} reaches {largest:.4g}; expected [-1, 1]: clip in `act`, so that replay and "
                "world model see what the environment executes"
            )
        return (action.clamp(-1.0, 1.0) * self._action_mask).numpy()


def _taken(stream: Stream) -> list[Trajectory]:
    trajectory = stream.take()
    return [] if trajectory is None else [trajectory]


def _under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _class_name(agent: Any) -> str:
    return f"{type(agent).__module__}.{type(agent).__qualname__}"
