"""An environment of your own, from PettingZoo to a trained team: `python -m examples.custom_environment`.

`Meeting` is a PettingZoo parallel environment like any other. Three things make it one that a world model can learn:
it has `state()`, its spaces are bounded Boxes, and all chance is drawn from the seed that `reset` is given.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from dima.run import cli
from envs.check import check_env
from envs.pettingzoo import PettingZooConfig

MAKE = "examples.custom_environment.Meeting"
CHOICE = ["env=pettingzoo", f"env.make={MAKE}", "env.env_id=meeting", "env.episode_steps=50"]
"""The words that choose this environment, e.g. PYTHONPATH=. dima check-env env=pettingzoo env.make=..."""


class Meeting(ParallelEnv[str, np.ndarray, np.ndarray]):
    """Robots on a plane that must meet. The first ones steer freely; the last one is on rails and only moves along x.

    Each robot sees where it is and where the next one is, relative to itself. Reward: minus the mean distance, in
    metres, from the robots' centre.
    """

    metadata = {"name": "meeting_v0"}
    step_length_m = 0.1

    def __init__(self, num_robots: int = 3) -> None:
        self.possible_agents = [f"robot_{i}" for i in range(num_robots)]
        self.agents: list[str] = []
        self._sizes = [2] * (num_robots - 1) + [1]
        self._position = np.zeros((num_robots, 2))

    def observation_space(self, agent: str) -> Box:
        """Own position and the way to the next robot."""
        return Box(-np.inf, np.inf, (4,))

    def action_space(self, agent: str) -> Box:
        """Velocity; agents may have different numbers of actions."""
        return Box(-1.0, 1.0, (self._sizes[self.possible_agents.index(agent)],))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Scatter the robots over a square of 2 m."""
        self.agents = list(self.possible_agents)
        self._position = np.random.default_rng(seed).uniform(-1.0, 1.0, self._position.shape)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """Move every robot; the time limit is the adapter's (`env.episode_steps`)."""
        for i, agent in enumerate(self.possible_agents):
            self._position[i, : self._sizes[i]] += self.step_length_m * actions[agent]
        distance = np.linalg.norm(self._position - self._position.mean(axis=0), axis=1)
        reward = -float(distance.mean())
        return self._observe(), self._for_all(reward), self._for_all(False), self._for_all(False), self._for_all({})

    def state(self) -> np.ndarray:
        """The global state: all positions."""
        return self._position.reshape(-1).astype(np.float32)

    def _observe(self) -> dict[str, np.ndarray]:
        following = np.roll(self._position, -1, axis=0) - self._position
        obs = np.concatenate([self._position, following], axis=1).astype(np.float32)
        return dict(zip(self.possible_agents, obs, strict=True))

    def _for_all(self, value: Any) -> dict[str, Any]:
        return dict.fromkeys(self.possible_agents, value)


def main(overrides: list[str]) -> int:
    """Check the environment, look at it through the adapter, and train a team for a moment."""
    config = PettingZooConfig(
        make=MAKE, kwargs={}, env_id="meeting", episode_steps=50, obs_mode="local", standardize_obs=False
    )
    findings = check_env(config)
    print("\n".join(map(str, findings)) or "check_env found nothing wrong")

    spec = config.build().spec
    print(f"{spec.num_agents} agents, state {spec.state_dim}, obs {spec.obs_sizes}, actions {spec.action_sizes}")
    return cli.main(["train", *CHOICE, "preset=smoke", "device=cpu", *overrides])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
