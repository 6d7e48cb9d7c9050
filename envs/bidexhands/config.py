"""The tasks as environments of the toolkit: `env=bidexhands-mujoco/door-open-outward`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.base import Observed, StepResult
from envs.bidexhands.batch import BiDexHandsBatch, PhysicsName, find_task, threads_of
from envs.bidexhands.parallel_env import BiDexHandsParallelEnv
from envs.bidexhands.scripted import scripted_policy
from envs.observation import FullObservation, LocalObservation, ObservationBuilder
from envs.pettingzoo import ObsMode, PettingZooEnv, check_obs_settings
from worldmodel.config import Config
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class BiDexHandsConfig(Config):
    """One task of the MuJoCo port of Bi-DexHands. State: the originals' whole `full_state` vector."""

    task: str
    """As in `bidexhands-mujoco/TASK`."""
    physics: PhysicsName
    """`fine`: 8 substeps a control step; `fast`: 4 and softer contacts, about twice as fast."""
    obs_mode: ObsMode
    """`local`: an agent's own hand and the object, as the originals; `full`: the state for every agent."""
    standardize_obs: bool
    """Standardise each agent's vector by its own mean and deviation; only with `obs_mode=full`."""
    contact_channels: bool
    """False: zeros for joint forces and for forces and torques at finger tips, the least faithful numbers."""
    num_threads: int | None
    """Threads that step a batch; null: the cores that the process may use. Changes no number."""
    render_width: int
    """Pixels."""
    render_height: int
    """Pixels."""

    def validate(self) -> None:
        """Refuse an unknown task."""
        find_task(self.task)
        check_obs_settings(self)
        self.require(self.num_threads is None or self.num_threads >= 1, "num_threads", "null or at least 1")
        self.require(self.render_width >= 1, "render_width", "at least 1 pixel")
        self.require(self.render_height >= 1, "render_height", "at least 1 pixel")

    @property
    def episode_steps(self) -> int:
        """Of the task; fixed by the original."""
        return find_task(self.task).episode_steps

    @property
    def env_id(self) -> str:
        """The name in results; not to be mistaken for the original's."""
        return f"bidexhands-mujoco/{self.task}"

    def build(self) -> BiDexHandsEnv:
        """One environment, which can be drawn and restored."""
        env = BiDexHandsParallelEnv(
            self.task,
            physics=self.physics,
            contact_channels=self.contact_channels,
            width=self.render_width,
            height=self.render_height,
        )
        return BiDexHandsEnv(
            env,
            env_id=self.env_id,
            episode_steps=self.episode_steps,
            obs_mode=self.obs_mode,
            standardize_obs=self.standardize_obs,
            versions=self._versions(),
        )

    def build_vector(self, num_envs: int) -> BiDexHandsVec:
        """`num_envs` environments whose worlds are stepped in threads and observed at once."""
        threads = self.num_threads or threads_of(num_envs)
        batch = BiDexHandsBatch(
            self.task, num_envs, num_threads=threads, physics=self.physics, contact_channels=self.contact_channels
        )
        return BiDexHandsVec(batch, self.build().spec, self.obs_mode, self.standardize_obs)

    def _versions(self) -> tuple[tuple[str, str], ...]:
        names = ("mujoco", "gymnasium-robotics")
        return (*((name, importlib.metadata.version(name)) for name in names), ("physics", self.physics))


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


class BiDexHandsVec:
    """A `VecEnv` on a batch: the same numbers as `BiDexHandsConfig.build` gives row by row."""

    def __init__(self, batch: BiDexHandsBatch, spec: EnvSpec, obs_mode: ObsMode, standardize_obs: bool) -> None:
        self._batch = batch
        self._spec = spec
        agents = spec.num_agents
        self._builder: ObservationBuilder = (
            LocalObservation(spec.obs_sizes)
            if obs_mode == "local"
            else FullObservation(spec.state_dim, agents, standardize=standardize_obs)
        )

    @property
    def spec(self) -> EnvSpec:
        """Of each environment."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """B."""
        return self._batch.num_envs

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Observed]:
        """Begin episodes."""
        obs, state = self._batch.reset(rows, seeds)
        return [Observed(self._builder(list(own), whole), whole) for own, whole in zip(obs, state, strict=True)]

    def step(self, rows: Sequence[int], action: np.ndarray) -> list[StepResult]:
        """One control step of each of `rows`, side by side."""
        result = self._batch.step(rows, action.astype(np.float32, copy=False))  # as the action space has it
        info = {"success": result.success.astype(float), **result.terms}
        return [
            StepResult(
                self._builder(list(result.obs[row]), result.state[row]),
                result.state[row],
                float(result.reward[row]),
                bool(result.terminated[row]),
                bool(result.truncated[row]),
                {name: float(values[row]) for name, values in info.items()},
            )
            for row in range(len(rows))
        ]

    def close(self) -> None:
        """End the threads."""
        self._batch.close()
