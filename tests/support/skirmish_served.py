"""SMAX's adapter without JAX: a small battle of the toolkit's own, served over the same protocol by the same file."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from envs import smax_worker
from envs.base import StepResult
from envs.smax import SmaxConfig
from envs.smax_vector import SmaxVec, SmaxWorker

DEFAULTS: dict[str, Any] = {
    "map": "skirmish",
    "python": None,
    "hide": "types_and_health",
    "episode_steps": 25,
    "see_enemy_actions": True,
    "walls_cause_death": True,
    "batching": "map",
    "timeout_s": 30.0,
    "start_timeout_s": 60.0,
}


@dataclasses.dataclass(frozen=True)
class SkirmishConfig(SmaxConfig):
    """Does all that the adapter does with SMAX, but starts a worker that serves the battle."""

    def command(self, num_worlds: int) -> list[str]:
        return served(num_worlds)


def skirmish_config(**changes: Any) -> SkirmishConfig:
    return SkirmishConfig(**{**DEFAULTS, **changes})


def smax_config(**changes: Any) -> SmaxConfig:
    return SmaxConfig(**{**DEFAULTS, "map": "3m", "episode_steps": 100, "start_timeout_s": 600.0, **changes})


def served(num_worlds: int, name: str = "skirmish") -> list[str]:
    """The command that serves the battle."""
    options = ["--serve", f"toy:{name}", "--with", "{}", "--num-worlds", str(num_worlds)]
    return [sys.executable, smax_worker.__file__, *options]


def start(num_worlds: int, timeout_s: float = 30.0) -> SmaxWorker:
    return SmaxWorker(served(num_worlds), "smax/skirmish", start_timeout_s=60.0, timeout_s=timeout_s)


def preferences(vec: SmaxVec, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Random ones [R,N,A]."""
    return rng.uniform(-1.0, 1.0, (rows, vec.spec.num_agents, vec.spec.action_dim)).astype(np.float32)


def same(first: StepResult, second: StepResult) -> None:
    """Fail unless two results are equal to the last bit."""
    np.testing.assert_array_equal(first.obs, second.obs)
    np.testing.assert_array_equal(first.state, second.state)
    assert first[2:] == second[2:]


def rows_equal_singles(vec: SmaxVec, single: SmaxVec, steps: int) -> int:
    """Play `vec`'s rows unevenly, and each episode again in `single`, alone: how many ended."""
    rng, ended = np.random.default_rng(3), 0
    begun = list(range(10, 10 + vec.num_envs))
    played: list[list[np.ndarray]] = [[] for _ in begun]
    seen: list[list[StepResult]] = [[] for _ in begun]
    vec.reset(range(vec.num_envs), begun)
    for step in range(steps):
        rows = [row for row in range(vec.num_envs) if (row + step) % 3]  # the others wait
        actions = preferences(vec, rng, len(rows))
        for row, action, result in zip(rows, actions, vec.step(rows, actions), strict=True):
            played[row].append(action)
            seen[row].append(result)
            if result.terminated or result.truncated:
                _replay(single, begun[row], played[row], seen[row])
                ended, begun[row], played[row], seen[row] = ended + 1, begun[row] + 100, [], []
                vec.reset([row], [begun[row]])
    return ended


def _replay(single: SmaxVec, seed: int, actions: list[np.ndarray], seen: list[StepResult]) -> None:
    single.reset([0], [seed])
    for action, result in zip(actions, seen, strict=True):
        same(result, single.step([0], action[None])[0])
