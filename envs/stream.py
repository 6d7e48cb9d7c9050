"""One environment and the episode under way in it: what was seen since the last trajectory, and how to get back there.

A collector steps several streams side by side. Knows environments through `MultiAgentEnv` only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from envs.base import EnvError, MultiAgentEnv, Observed, StepResult, check_observed, check_step
from worldmodel.types import Trajectory


@dataclasses.dataclass(frozen=True)
class EpisodeSummary:
    """A finished real episode: where it ran, from which seed, and how it went."""

    stream: int
    episode: int
    """How many episodes its stream had finished before."""
    seed: int
    return_: float
    """Sum of the team's rewards."""
    length: int
    """Env steps."""
    terminated: bool
    truncated: bool


def episode_seed(seed: int, stream: int, episode: int) -> int:
    """The seed in [0, 2^31) of one episode, a pure function of the run's seed, the stream and the episode's number.

    31 bits, because some environments seed generators that accept no more.
    """
    return int(np.random.SeedSequence([seed, stream, episode]).generate_state(1, np.uint32)[0] >> 1)


class Stream:
    """An environment, its current episode, and the transitions that no trajectory has yet carried away."""

    def __init__(self, env: MultiAgentEnv, seed: int, index: int) -> None:
        self.env = env
        self.index = index
        self.episode = 0
        """Number of the episode under way, or of the next one."""
        self.is_open = False
        """True while an episode is under way."""
        spec = env.spec
        # Until its first episode begins, a stream shows zeros: it may idle in a batch where others act.
        self.observed = Observed(
            np.zeros((spec.num_agents, spec.obs_dim), np.float32), np.zeros(spec.state_dim, np.float32)
        )
        self._run_seed = seed
        self._actions: list[np.ndarray] = []
        self._return = 0.0
        self._pending = _Pending(is_start=True)

    @property
    def seed(self) -> int:
        """The seed of the episode under way, or of the next one."""
        return episode_seed(self._run_seed, self.index, self.episode)

    @property
    def is_first(self) -> bool:
        """True at an episode's first step."""
        return not self._actions

    def begin(self) -> None:
        """Reset the environment with the seed of the next episode."""
        where = f"after reset(seed={self.seed})"
        self.observed = check_observed(self.env.spec, self.env.reset(self.seed), where)
        self.is_open = True
        self._actions = []
        self._return = 0.0
        self._pending = _Pending(is_start=True)
        self._pending.observed.append(self.observed)

    def step(self, action: np.ndarray) -> EpisodeSummary | None:
        """Take one env step with `action` [N,A]; the summary of the episode if this ended it."""
        return self.record(action, self.env.step(action))

    def record(self, action: np.ndarray, result: StepResult) -> EpisodeSummary | None:
        """Note what the environment gave for `action` [N,A]; the summary of the episode if this ended it.

        Raises:
            EnvError: when `result` breaks the contract.
        """
        where = f"after step {len(self._actions) + 1} of the episode with seed {self.seed}"
        check_step(self.env.spec, result, where)
        self.observed = Observed(result.obs, result.state)
        self._actions.append(action)
        self._return += float(result.reward)
        self._pending.add(self.observed, action, result.reward, result.terminated, result.truncated)
        if not (result.terminated or result.truncated):
            return None
        summary = EpisodeSummary(
            stream=self.index,
            episode=self.episode,
            seed=self.seed,
            return_=self._return,
            length=len(self._actions),
            terminated=bool(result.terminated),
            truncated=bool(result.truncated),
        )
        self.is_open = False
        return summary

    def take(self) -> Trajectory | None:
        """Carry away the transitions since the last call; None when there are none. Counts the episode if it ended."""
        trajectory = self._pending.trajectory(self.index, self.seed)
        self._pending = _Pending(is_start=False)
        self._pending.observed.append(self.observed)
        if trajectory is not None and not self.is_open:
            self.episode += 1
            self._actions = []
        return trajectory

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to return to this point of the episode; all transitions must have been taken."""
        spec = self.env.spec
        state: dict[str, Any] = {"episode": self.episode, "is_open": self.is_open}
        if self.is_open:
            action = np.zeros((len(self._actions), spec.num_agents, spec.action_dim), np.float32)  # [T, N, A]
            for step, taken in enumerate(self._actions):
                action[step] = taken
            state["action"] = torch.from_numpy(action)
            state["obs"] = torch.from_numpy(self.observed.obs.copy())
            state["state"] = torch.from_numpy(self.observed.state.copy())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to a saved point: reset with the episode's seed, repeat its actions, compare what is seen, bit by bit.

        Raises:
            EnvError: when the environment does not repeat itself.
        """
        self.episode, self.is_open = state["episode"], False
        self._actions = []
        self._pending = _Pending(is_start=True)
        if not state["is_open"]:
            return
        self.begin()
        for action in state["action"].numpy():
            if self.step(action) is not None:
                raise self._not_repeated(f"it ended after {len(self._actions)} of {len(state['action'])} steps")
        self.take()
        for name in ("obs", "state"):
            saved, now = state[name].numpy(), getattr(self.observed, name)
            if saved.shape != now.shape:
                raise self._not_repeated(f"{name} has shape {list(now.shape)}, it was {list(saved.shape)}")
            if not np.array_equal(saved, now):
                at = tuple(int(i) for i in np.argwhere(saved != now)[0])
                raise self._not_repeated(f"{name}{list(at)} is {now[at]!r}, it was {saved[at]!r}")

    def _not_repeated(self, difference: str) -> EnvError:
        versions = ", ".join(f"{name} {version}" for name, version in self.env.spec.versions) or "no versions given"
        return EnvError(
            f"environment {self.env.spec.env_id} does not repeat itself: {len(self._actions)} steps into the episode "
            f"with seed {self.seed}, {difference}. An episode must depend on its seed and actions alone, and a saved "
            f"run goes on only with the simulator it began with (now: {versions})"
        )


class _Pending:
    """Transitions not yet carried away, with the observation before the first of them."""

    def __init__(self, is_start: bool) -> None:
        self.is_start = is_start
        self.observed: list[Observed] = []
        self._action: list[np.ndarray] = []
        self._reward: list[float] = []
        self._terminated: list[bool] = []
        self._truncated: list[bool] = []

    def add(self, observed: Observed, action: np.ndarray, reward: float, terminated: bool, truncated: bool) -> None:
        self.observed.append(observed)
        self._action.append(action)
        self._reward.append(reward)
        self._terminated.append(terminated)
        self._truncated.append(truncated)

    def trajectory(self, stream: int, seed: int) -> Trajectory | None:
        if not self._action:
            return None
        return Trajectory(
            obs=torch.from_numpy(np.stack([observed.obs for observed in self.observed])),
            state=torch.from_numpy(np.stack([observed.state for observed in self.observed])),
            action=torch.from_numpy(np.stack(self._action)),
            reward=torch.tensor(self._reward, dtype=torch.float32),
            terminated=torch.tensor(self._terminated, dtype=torch.bool),
            truncated=torch.tensor(self._truncated, dtype=torch.bool),
            stream=stream,
            is_start=self.is_start,
            seed=seed,
        )
