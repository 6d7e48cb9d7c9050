"""The worlds of Isaac Gym as environments: all stepped at once, reset only inside a step, here begun when asked to.

Knows the worker's arrays, and nothing of how it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.base import EnvError, Observed, StepResult
from envs.isaacgym_link import Arrays, IsaacGymWorker
from envs.observation import FullObservation, LocalObservation, ObservationBuilder
from envs.pettingzoo import ObsMode
from envs.vector import Row
from worldmodel.types import EnvSpec

_FIRST_ACTION = 0.01
"""Largest action of the step in which a world begins anew, as in the original's own `reset`."""


class IsaacGymVec:
    """A `VecEnv` on the worlds of one worker, of which any that is in no episode begins anew at every step.

    So there is always a world that stands at a first observation, and an episode that begins takes it: the others need
    not wait, and the step from an episode's last observation into the next episode is never handed out. Rows whose
    episode is over do not count, but all rows that are in one must be stepped together. When no other row is in an
    episode, everything begins anew, with chance from the seed.

    Raises:
        EnvError: when the worker fails, and where the simulator does not keep to what docs/isaacgym.md assumes of it.
    """

    def __init__(
        self, worker: IsaacGymWorker, num_envs: int, env_id: str, obs_mode: ObsMode, standardize_obs: bool
    ) -> None:
        sizes = worker.hello.sizes
        self._worker = worker
        self._world: list[int | None] = [None] * num_envs  # in which a row's episode runs; None between episodes
        self._age = np.zeros(sizes.worlds, dtype=np.int64)  # steps since a world began anew
        self._shown: Arrays = {}
        self._rng = np.random.default_rng()
        self._builder: ObservationBuilder = (
            LocalObservation((sizes.obs,) * sizes.agents)
            if obs_mode == "local"
            else FullObservation(sizes.state, sizes.agents, standardize=standardize_obs)
        )
        self._spec = EnvSpec(
            env_id=env_id,
            num_agents=sizes.agents,
            state_dim=sizes.state,
            obs_sizes=self._builder.sizes,
            action_sizes=(sizes.action,) * sizes.agents,
            episode_steps=worker.hello.episode_steps - 1,
            appends_agent_id=self._builder.appends_agent_id,
            versions=worker.hello.versions,
        )

    @property
    def spec(self) -> EnvSpec:
        """Of each; an episode has one step less than the original's, whose first shows nothing before it."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """B."""
        return len(self._world)

    @property
    def worker(self) -> IsaacGymWorker:
        """The process with the worlds."""
        return self._worker

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Observed]:
        """Begin episodes; a seed decides as much as Isaac Gym lets it, and only where no other row is in an episode."""
        return [self._begin(row, seed) for row, seed in zip(rows, seeds, strict=True)]

    def step(self, rows: Sequence[int], action: np.ndarray) -> list[StepResult]:
        """One control step of each of `rows`, which must be all that are in an episode, with `action` [R,N,A]."""
        worlds = self._stepped(rows)
        sizes = self._worker.hello.sizes
        if np.shape(action) != (len(worlds), sizes.agents, sizes.action) or not np.isfinite(action).all():
            expected = [len(worlds), sizes.agents, sizes.action]
            raise EnvError(f"{self._spec.env_id}: action {list(np.shape(action))}; expected finite numbers {expected}")
        again = np.ones(sizes.worlds, dtype=np.uint8)
        again[worlds] = 0
        everybody = self._rng.uniform(-_FIRST_ACTION, _FIRST_ACTION, (sizes.worlds, sizes.agents, sizes.action))
        everybody[worlds] = np.clip(action, -1.0, 1.0)
        shown = self._worker.step(again, everybody)
        self._see(shown, np.where(again, 1, self._age + 1))
        return [self._result(row, world) for row, world in zip(rows, worlds, strict=True)]

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _begin(self, row: int, seed: int) -> Observed:
        """A first observation: one step after a world began anew, the earliest that the original shows."""
        others = {world for other, world in enumerate(self._world) if world is not None and other != row}
        if not others:
            self._rng = np.random.default_rng(seed)
            self._see(self._worker.reset(seed), np.ones_like(self._age))
        ready = (self._age == 1) & (self._shown["done"] == 0)
        world = next((world for world in np.flatnonzero(ready).tolist() if world not in others), None)
        if world is None:
            raise EnvError(f"{self._spec.env_id}: every episode is over at its first step")
        self._world[row] = world
        return self._observed(world)

    def _stepped(self, rows: Sequence[int]) -> list[int]:
        """The worlds of `rows`."""
        worlds = [self._world[row] for row in rows]
        open_rows = {row for row, world in enumerate(self._world) if world is not None}
        if None in worlds or len(set(rows)) != len(rows):
            ended = [row for row in rows if row not in open_rows]
            raise EnvError(f"{self._spec.env_id}: step() of {ended or rows} before reset(), after the end, or twice")
        if waiting := sorted(open_rows.difference(rows)):
            raise EnvError(
                f"{self._spec.env_id}: row {waiting[0]} is in the middle of an episode and cannot wait, for Isaac Gym "
                "steps all worlds at once. Nor can several unfinished episodes be repeated one after the other, as "
                "going on with a saved run does: train with trainer.collect_unit=episodes to be able to"
            )
        return [world for world in worlds if world is not None]

    def _see(self, shown: Arrays, age: np.ndarray) -> None:
        """Take in what the worlds show now; their own count of steps must be ours."""
        self._shown, self._age = shown, age
        if wrong := np.flatnonzero(shown["progress"] != age).tolist():
            raise EnvError(
                f"{self._spec.env_id}: world {wrong[0]} is at step {shown['progress'][wrong[0]]} by its own count, "
                f"expected {age[wrong[0]]}: this Bi-DexHands resets in another way than docs/isaacgym.md assumes"
            )

    def _observed(self, world: int) -> Observed:
        state = self._shown["state"][world].copy()
        return Observed(self._builder(list(self._shown["obs"][world]), state), state)

    def _result(self, row: int, world: int) -> StepResult:
        """An end at the last step counts as the time's, an earlier one as a failure: the original does not say."""
        is_over, is_last = bool(self._shown["done"][world]), self._age[world] > self._spec.episode_steps
        if is_last and not is_over:
            raise EnvError(f"{self._spec.env_id}: an episode goes on after {self._age[world]} steps, its length")
        if is_over:
            self._world[row] = None
        reward, success = float(self._shown["reward"][world]), float(self._shown["success"][world])
        info = {} if np.isnan(success) else {"success": success}
        return StepResult(*self._observed(world), reward, is_over and not is_last, is_over and bool(is_last), info)


class IsaacGymEnv(Row):
    """The only row of a vector, as an environment of its own."""

    def __init__(self, vector: IsaacGymVec) -> None:
        super().__init__(vector, 0)

    def render(self) -> np.ndarray:
        """Refused: the simulator runs without a picture."""
        raise EnvError(f"environment {self.spec.env_id}: the worker makes no pictures; the MuJoCo port does")

    def close(self) -> None:
        """End the worker."""
        self._vector.close()
