"""The MuJoCo port behind the interface of the originals' multi-agent wrapper, lazy resets and all.

What the originals' adapter is tested on where there is no Isaac Gym: `envs/isaacgym_worker.py --serve mujoco:TASK`.
For anything else `BiDexHandsBatch` is the better interface.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.bidexhands.batch import NUM_AGENTS, BiDexHandsBatch, PhysicsName

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, None]


@dataclasses.dataclass
class LazyTask:
    """What the originals keep inside the wrapper, by their names; B worlds."""

    max_episode_length: int
    reset_buf: np.ndarray
    """[B] int: nonzero where the next step begins with a reset; all of them at first."""
    progress_buf: np.ndarray
    """[B] int: steps since the reset."""
    successes: np.ndarray
    """[B] float: 1 where the aim was reached since the reset."""


class LazyHands:
    """`num_envs` worlds of a task. A world that is done is reset inside the next `step`, before its action is applied.

    Done does not tell a failure from the end of time, infos are empty, rewards and ends are repeated for both agents.

    Args:
        task: a name of the port's, e.g. "over".
        num_envs: B.
        physics: as `BiDexHandsBatch`.
    """

    num_agents = NUM_AGENTS

    def __init__(self, task: str, num_envs: int, *, physics: PhysicsName = "fine") -> None:
        self._batch = BiDexHandsBatch(task, num_envs, physics=physics)
        self._rng = np.random.default_rng()
        observer = self._batch.observer
        self.num_environments = num_envs
        self.num_observations = observer.obs_size
        self.nums_share_observations = observer.state_size
        self.num_actions = observer.action_size
        self.task = LazyTask(
            self._batch.episode_steps,
            np.ones(num_envs, np.int64),
            np.zeros(num_envs, np.int64),
            np.zeros(num_envs),
        )

    def seed(self, seed: int) -> None:
        """Let all later chance follow from `seed`."""
        self._rng = np.random.default_rng(seed)

    def reset(self) -> tuple[np.ndarray, np.ndarray, None]:
        """One step with actions of at most 0.01, in which the worlds that are flagged for it begin anew, no others.

        Returns observations [B,2,O] and states [B,2,S].
        """
        shape = (NUM_AGENTS, self.num_environments, self.num_actions)
        obs, state = self.step(self._rng.uniform(-0.01, 0.01, shape).astype(np.float32))[:2]
        return obs, state, None

    def step(self, actions: np.ndarray) -> Step:
        """One control step of all worlds with `actions` [2,B,A].

        Returns observations [B,2,O], states [B,2,S], rewards [B,2,1], ends [B,2] as 0 or 1, empty infos, None.
        """
        task, rows = self.task, range(self.num_environments)
        again = np.flatnonzero(task.reset_buf).tolist()
        if again:
            self._batch.reset(again, [int(seed) for seed in self._rng.integers(2**31, size=len(again))])
            task.progress_buf[again] = 0
        result = self._batch.step(rows, np.swapaxes(np.asarray(actions), 0, 1))  # [2, B, A] -> [B, 2, A]
        task.progress_buf += 1
        task.reset_buf[:] = result.terminated | result.truncated
        task.successes[:] = result.success
        state = np.repeat(result.state[:, None], NUM_AGENTS, axis=1)  # [B, S] -> [B, 2, S]
        reward = np.repeat(result.reward[:, None, None], NUM_AGENTS, axis=1)  # [B] -> [B, 2, 1]
        ended = np.repeat(task.reset_buf[:, None], NUM_AGENTS, axis=1)  # [B] -> [B, 2]
        return result.obs, state, reward, ended, np.zeros((NUM_AGENTS, 0)), None

    def close(self) -> None:
        """Free the worlds."""
        self._batch.close()
