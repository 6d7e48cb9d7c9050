"""Real episodes with listed seeds: how well agents do, apart from training and without touching its random numbers.

Several environments step side by side so that the agents' networks run once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.base import EnvConfig, check_observed, check_step
from envs.vector import VecEnv, build_vector
from worldmodel.protocol import Agent


class Evaluator:
    """Plays whole episodes in environments of its own, built once."""

    def __init__(self, env_config: EnvConfig, seeds: Sequence[int], num_envs: int) -> None:
        """Play one episode for each of `seeds`, at most `num_envs` side by side."""
        self.seeds = list(seeds)
        self._vector = build_vector(env_config, min(num_envs, len(self.seeds)))

    @property
    def num_envs(self) -> int:
        """Environments that step side by side."""
        return self._vector.num_envs

    def play(self, agent: Agent[Any], on_step: Callable[[], None] = lambda: None) -> list[float]:
        """The return of each episode, in the order of the seeds; `on_step` is called after every reset and step.

        Raises:
            EnvError: when an environment gives a wrong shape or type or a value that is not finite.
        """
        returns: list[float] = []
        for first in range(0, len(self.seeds), self.num_envs):
            returns += play_episodes(self._vector, agent, self.seeds[first : first + self.num_envs], on_step)
        return returns

    def close(self) -> None:
        """Free the environments."""
        self._vector.close()


@torch.no_grad()
def play_episodes(
    vector: VecEnv,
    agent: Agent[Any],
    seeds: Sequence[int],
    on_step: Callable[[], None] = lambda: None,
) -> list[float]:
    """Play one episode for each of `seeds` in the first rows of `vector`, and return the sums of their rewards.

    An environment whose episode is over keeps its last observation, so that the batch keeps its size. `on_step` is
    called after the resets and after every step.
    """
    rows = range(len(seeds))
    seen = [
        check_observed(vector.spec, observed, f"after reset(seed={seed})")
        for observed, seed in zip(vector.reset(rows, seeds), seeds, strict=True)
    ]
    obs, state = [s.obs for s in seen], [s.state for s in seen]
    carry = agent.begin(_stack(obs), _stack(state))
    is_first = torch.ones(len(seeds), dtype=torch.bool)
    returns, is_over, step = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=bool), 0
    on_step()
    while not is_over.all():
        action, carry = agent.act(carry, _stack(obs), _stack(state), is_first)
        is_first = torch.zeros_like(is_first)
        joint = action.cpu().numpy()
        step += 1
        active = np.flatnonzero(~is_over).tolist()
        for i, result in zip(active, vector.step(active, joint[active]), strict=True):
            check_step(vector.spec, result, f"at step {step} of seed {seeds[i]}")
            obs[i], state[i] = result.obs, result.state
            returns[i] += result.reward
            is_over[i] = result.terminated or result.truncated
        on_step()
    return returns.tolist()


def _stack(rows: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))
