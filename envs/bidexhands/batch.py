"""A batch of episodes of one task side by side: actions in, observations, rewards and ends out.

Of NumPy and MuJoCo only. Each row has its own episode and is reset by its own seed; which other rows are stepped at the
same time changes nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from envs.bidexhands.observation import Observer
from envs.bidexhands.readings import Readings, read
from envs.bidexhands.scene import FAST, FINE, Physics
from envs.bidexhands.simulation import Simulation, Snapshot, build_model, joint_targets
from envs.bidexhands.task import Task
from envs.bidexhands.tasks import TASKS
from envs.errors import EnvError

PhysicsName = Literal["fine", "fast"]
PHYSICS: dict[str, Physics] = {"fine": FINE, "fast": FAST}

NUM_AGENTS = 2


class BatchObserved(NamedTuple):
    """R rows after a reset or a step: `obs` float32 [R,2,O] and `state` float32 [R,S]."""

    obs: np.ndarray
    state: np.ndarray


class BatchStep(NamedTuple):
    """R rows after a step.

    `reward` float64 [R], the team's; `terminated` [R]: the task failed; `truncated` [R]: the time ran out (both may
    hold); `success` [R]: the aim was reached at this or an earlier step of the episode; `terms`: [R] each.
    """

    obs: np.ndarray
    state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    terms: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class BatchSnapshot:
    """A moment of one row's episode."""

    world: Snapshot
    action: np.ndarray
    goal: np.ndarray
    elapsed: int
    succeeded: bool
    is_open: bool


class BiDexHandsBatch:
    """`num_envs` episodes of a task.

    Args:
        task: a name in `TASKS`, or a task of your own.
        num_envs: B.
        num_threads: that step worlds at the same time.
        physics: `fine` (8 substeps) or `fast` (4, softer contacts), or settings of your own.
        contact_channels: False zeros the force channels of the observation.
        episode_steps: control steps after which an episode is truncated; None: the task's.

    Raises:
        EnvError: for an unknown task or physics, a number below 1, or without the hand's files.

    It cannot be copied or pickled: keep its arguments (`BiDexHandsConfig`) and snapshots instead.
    """

    def __init__(
        self,
        task: str | Task,
        num_envs: int = 1,
        *,
        num_threads: int = 1,
        physics: PhysicsName | Physics = "fine",
        contact_channels: bool = True,
        episode_steps: int | None = None,
    ) -> None:
        self.task = find_task(task) if isinstance(task, str) else task
        self._name = f"bidexhands-mujoco/{self.task.name}"
        self.physics = self._find_physics(physics) if isinstance(physics, str) else physics
        for name, number in (("num_envs", num_envs), ("num_threads", num_threads), ("episode_steps", episode_steps)):
            if number is not None and number < 1:
                raise EnvError(f"{self._name}: {name} = {number}; expected at least 1")
        self.simulation = Simulation(
            build_model(self.task, self.physics), num_envs, num_threads, self.physics.substeps, self.task.name
        )
        self.episode_steps = self.task.episode_steps if episode_steps is None else episode_steps
        self.observer = Observer(self.task, contact_channels=contact_channels)
        self._action = np.zeros((num_envs, NUM_AGENTS, self.observer.action_size))
        self._goal = np.zeros((num_envs, 7))
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._succeeded = np.zeros(num_envs, dtype=bool)
        self._is_open = np.zeros(num_envs, dtype=bool)

    @property
    def num_envs(self) -> int:
        """B."""
        return len(self._elapsed)

    @property
    def action_size(self) -> int:
        """A, of one agent."""
        return self.observer.action_size

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> BatchObserved:
        """Begin an episode in each of `rows`; all chance in it comes from its seed, an integer of at least 0."""
        rows = self._distinct(rows)
        if min(seeds, default=0) < 0:
            raise EnvError(f"{self._name}: seed = {min(seeds)}; expected at least 0")
        for row, seed in zip(rows, seeds, strict=True):
            start = self.task.start(np.random.default_rng(seed))
            self.simulation.reset(row, start)
            self._goal[row] = 0.0 if start.goal is None else start.goal
        self._action[rows] = 0.0
        self._elapsed[rows] = 0
        self._succeeded[rows] = False
        self._is_open[rows] = True
        state = self.observer.state(self.readings(rows), self._goal[rows], self._action[rows])
        return BatchObserved(self.observer.obs(state), state)

    def step(self, rows: Sequence[int], action: np.ndarray) -> BatchStep:
        """One control step (1/60 s) of `rows` with `action` [R,2,A], clipped to [-1, 1].

        A: the force on the hand's base (3), the torque on it (3; both left out where hands are fixed), the 20 motors.

        Raises:
            EnvError: for a row that is named twice or whose episode has ended, an action out of shape or not finite,
                or unstable physics.
        """
        rows = self._distinct(rows)
        action = self._checked(rows, action)
        targets, wrenches = self._controls(action)
        self._is_open[rows] = False  # should a world blow up, no episode of this step can go on
        self.simulation.step(rows, targets, wrenches)
        self._action[rows] = action
        self._elapsed[rows] += 1
        readings = self.readings(rows)
        outcome = self.task.judge(readings, self._goal[rows])
        self._succeeded[rows] |= outcome.success
        truncated = self._elapsed[rows] >= self.episode_steps
        self._is_open[rows] = ~(outcome.failed | truncated)
        state = self.observer.state(readings, self._goal[rows], action)
        return BatchStep(
            self.observer.obs(state),
            state,
            outcome.reward,
            outcome.failed,
            truncated,
            self._succeeded[rows],
            outcome.terms,
        )

    def readings(self, rows: Sequence[int]) -> Readings:
        """What the sensors of `rows` show."""
        return read(self.simulation.sensors(rows), self.task.points, self.task.angles)

    def goal(self, rows: Sequence[int]) -> np.ndarray:
        """[R,7] where the objects are to go; zeros where the task has no goal."""
        return self._goal[list(rows)].copy()

    def snapshot(self, row: int) -> BatchSnapshot:
        """All that decides what comes next in `row`."""
        return BatchSnapshot(
            self.simulation.snapshot(row),
            self._action[row].copy(),
            self._goal[row].copy(),
            int(self._elapsed[row]),
            bool(self._succeeded[row]),
            bool(self._is_open[row]),
        )

    def restore(self, row: int, snapshot: BatchSnapshot) -> None:
        """Go back to `snapshot`; what follows is the same, to the bit."""
        self.simulation.restore(row, snapshot.world)
        self._action[row], self._goal[row] = snapshot.action, snapshot.goal
        self._elapsed[row], self._succeeded[row] = snapshot.elapsed, snapshot.succeeded
        self._is_open[row] = snapshot.is_open

    def close(self) -> None:
        """End the threads."""
        self.simulation.close()

    def _find_physics(self, physics: str) -> Physics:
        if physics not in PHYSICS:
            raise EnvError(f"{self._name}: there is no physics {physics!r}; expected one of {', '.join(PHYSICS)}")
        return PHYSICS[physics]

    def _distinct(self, rows: Sequence[int]) -> list[int]:
        """`rows` as a list; a row named twice would be stepped by two threads at once."""
        listed = [int(row) for row in rows]
        if len(set(listed)) < len(listed) or not all(0 <= row < self.num_envs for row in listed):
            raise EnvError(f"{self._name}: rows = {listed}; expected each at most once and in [0, {self.num_envs})")
        return listed

    def _checked(self, rows: list[int], action: np.ndarray) -> np.ndarray:
        name = self._name
        expected = (len(rows), NUM_AGENTS, self.action_size)
        if np.shape(action) != expected:
            raise EnvError(f"{name}: action has shape {list(np.shape(action))}; expected [R, 2, A] = {list(expected)}")
        if not np.isfinite(action).all():
            raise EnvError(f"{name}: action holds a value that is not finite; expected numbers in [-1, 1]")
        ended = [row for row in rows if not self._is_open[row]]
        if ended:
            raise EnvError(f"{name}: step() of {ended} before reset(), or after the episode's end")
        return np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)

    def _controls(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Motor targets [R,40] and wrenches on the forearms [R,2,6]."""
        targets = joint_targets(action[..., -20:]).reshape(len(action), 40)
        wrenches = np.zeros((len(action), NUM_AGENTS, 6))
        if self.task.drive is not None:
            strength = np.repeat([self.task.drive.force, self.task.drive.torque], 3)
            wrenches[:] = strength * action[..., :6]
        return targets, wrenches


def find_task(name: str) -> Task:
    """The task called `name`, as in `bidexhands-mujoco/NAME`; raises `EnvError` with the names that there are."""
    if name not in TASKS:
        raise EnvError(f"there is no task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def threads_of(num_worlds: int) -> int:
    """A number of threads for `num_worlds` worlds: the cores that the process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(num_worlds, cores))
