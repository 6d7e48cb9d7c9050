"""Plays given actions in an environment and keeps what was seen, to be compared with another playing of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.base import MultiAgentEnv, check_observed, check_step
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class Played:
    """What was seen: `obs` [T+1,N,O], `state` [T+1,S], `reward` [T], and how the episode ended, if it did."""

    obs: np.ndarray
    state: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool

    @property
    def length(self) -> int:
        """T: env steps taken."""
        return len(self.reward)

    def difference(self, other: Played) -> str | None:
        """Where `other` first departs from this, in words; None where the two are the same bit for bit."""
        for name in ("state", "obs", "reward"):
            mine, theirs = getattr(self, name), getattr(other, name)
            steps = min(len(mine), len(theirs))
            unequal = np.argwhere(mine[:steps] != theirs[:steps])
            if len(unequal):
                step, *index = (int(i) for i in unequal[0])
                at = (step, *index)
                return f"{name}{index or ''} at step {step} is {mine[at]} once and {theirs[at]} once"
        if (self.length, self.terminated, self.truncated) != (other.length, other.terminated, other.truncated):
            return f"one ends {self._end()}, the other {other._end()}"
        return None

    def _end(self) -> str:
        how = [name for name in ("terminated", "truncated") if getattr(self, name)] or ["open"]
        return f"after {self.length} steps ({' and '.join(how)})"


def random_actions(spec: EnvSpec, num_steps: int, seed: int) -> np.ndarray:
    """Uniform actions float32 [T,N,A] in [-1, 1], zeros where padded, the same for the same seed."""
    shape = (num_steps, spec.num_agents, spec.action_dim)
    uniform = np.random.default_rng(seed).uniform(-1.0, 1.0, shape)
    return (uniform * spec.action_mask().numpy()).astype(np.float32)


def play(env: MultiAgentEnv, seed: int, actions: np.ndarray) -> Played:
    """Take `actions` [T,N,A] from `reset(seed)` on, until they or the episode end; raises as `check_step`."""
    observed = check_observed(env.spec, env.reset(seed), f"after reset(seed={seed})")
    obs, state, reward = [observed.obs.copy()], [observed.state.copy()], []
    terminated = truncated = False
    for step, action in enumerate(actions, start=1):
        result = check_step(env.spec, env.step(action), f"after step {step} of the episode with seed {seed}")
        obs.append(result.obs.copy())
        state.append(result.state.copy())
        reward.append(float(result.reward))
        terminated, truncated = bool(result.terminated), bool(result.truncated)
        if terminated or truncated:
            break
    return Played(np.stack(obs), np.stack(state), np.array(reward), terminated, truncated)
