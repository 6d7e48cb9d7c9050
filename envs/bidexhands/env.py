"""One environment of the port in the contract of the toolkit: it can be drawn and restored, and has a script."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands.pettingzoo_env import BiDexHandsParallelEnv
from envs.bidexhands.scripted import scripted_policy
from envs.pettingzoo import PettingZooEnv


class BiDexHandsEnv(PettingZooEnv):
    """A `RestorableEnv` and `ScriptedEnv` around the PettingZoo environment; arguments as `PettingZooEnv`."""

    def snapshot(self) -> Any:
        """A copy of the world and of every counter."""
        env = self._hands
        return env.batch.snapshot(0), list(env.agents), env.state(), self._step_count

    def restore(self, snapshot: Any) -> None:
        """Write `snapshot` back."""
        env = self._hands
        world, agents, state, self._step_count = snapshot
        env.batch.restore(0, world)
        env.resume(list(agents), state)

    def scripted_action(self, noise: float, rng: np.random.Generator) -> np.ndarray:
        """[2,A] of the task's script, which reads positions and angles that no agent observes."""
        batch = self._hands.batch
        policy = scripted_policy(batch.task.name)
        return policy.act(batch.readings([0]), np.array([self._step_count]), noise=noise, generator=rng)[0]

    @property
    def _hands(self) -> BiDexHandsParallelEnv:
        env: Any = self._env
        return env
