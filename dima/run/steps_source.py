"""Where the training loop's real steps come from, and the source that collects them in this process.

`worker_source` has the other one, whose worker processes each run the source of this file over their share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import torch

from envs.collector import Collector
from envs.random_agent import RandomAgent
from envs.stream import EpisodeSummary
from imagination.agent import PolicyAgent
from imagination.policy import Policy
from worldmodel.protocol import Agent, WorldModel
from worldmodel.types import EnvSpec, Trajectory

Acting = Literal["random", "policy", "deterministic"]
"""Who acts in a round: uniformly random actions, the policy's samples, or its deterministic actions."""

Unit = Literal["steps", "episodes"]


class StepsSource(Protocol):
    """Gives the training loop its real steps, round by round."""

    episodes: list[EpisodeSummary]
    """The episodes that ended in the steps of the latest round."""

    def request(self, acting: Acting) -> None:
        """Say who will act in the next round, and that weights and statistics are now what it may be collected with.

        A source that collects in the background begins; where steps already wait for that round, nothing happens.
        """
        ...

    def collect(self, acting: Acting) -> Iterator[Trajectory]:
        """The steps of the next round, trajectory by trajectory; `acting` counts where nothing was requested.

        Raises:
            FloatingPointError: when an action is not finite.
            EnvError: when an environment breaks its contract.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where everything stands, steps that wait for the next round included."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], acting: Acting) -> None:
        """Return to where `state_dict` was called; `acting`: who acts next."""
        ...

    def close(self) -> None:
        """Free environments and processes."""
        ...


class LocalSource:
    """Collects in this process, at the moment when steps are asked for, with the weights of that moment."""

    def __init__(self, collector: Collector, agents: Mapping[Acting, Agent[Any]], unit: Unit, num_steps: int) -> None:
        """Collect `num_steps` env steps a round, or with `unit` episodes whole episodes until there are as many."""
        self.episodes: list[EpisodeSummary] = []
        self._collector = collector
        self._agents = agents
        self._unit = unit
        self._num_steps = num_steps

    def request(self, acting: Acting) -> None:
        """Nothing: what is collected here is collected when it is asked for."""

    def collect(self, acting: Acting) -> Iterator[Trajectory]:
        """Steps as they are collected: whole episodes meet the weights and statistics that the ones before them left.

        Raises:
            FloatingPointError: when an action is not finite.
            EnvError: when an environment breaks its contract.
        """
        by_steps = self._unit == "steps"
        amount = {"num_steps": self._num_steps} if by_steps else {"num_episodes": self._collector.num_envs}
        self.episodes, collected = [], 0
        while collected < self._num_steps:
            trajectories = self._collector.collect(self._agents[acting], **amount)
            self.episodes += self._collector.episodes
            for trajectory in trajectories:
                collected += trajectory.length
                yield trajectory

    def state_dict(self) -> dict[str, Any]:
        """Where every environment and the agent's carry stand."""
        return self._collector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], acting: Acting) -> None:
        """Return there. Beginning the agent's carry may draw random numbers: put generators back afterwards.

        Raises:
            ValueError: when `state` belongs to other environments.
            EnvError: when an environment does not repeat itself.
        """
        self._collector.load_state_dict(state, self._agents[acting])

    def close(self) -> None:
        """Close every environment."""
        self._collector.close()


def collecting_agents(
    model: WorldModel[Any], policy: Policy, spec: EnvSpec, explore: torch.Generator, sample: torch.Generator
) -> dict[Acting, Agent[Any]]:
    """Everyone who may collect; `explore` is drawn from by random actions, `sample` by the policy and the model."""
    return {
        "random": RandomAgent(spec, explore),
        "policy": PolicyAgent(model, policy, sample, deterministic=False),
        "deterministic": PolicyAgent(model, policy, sample, deterministic=True),
    }
