"""The tasks as environments of the toolkit: `env=bidexhands-mujoco/door-open-outward`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import TYPE_CHECKING

from envs.bidexhands.batch import NUM_AGENTS, BiDexHandsBatch, PhysicsName, find_task, threads_of
from envs.bidexhands.observation import Observer
from envs.bidexhands.vec import BiDexHandsVec, observation_builder
from envs.observation import ObservationBuilder
from envs.pettingzoo import ObsMode
from worldmodel.config import Config
from worldmodel.types import EnvSpec

if TYPE_CHECKING:
    from envs.bidexhands.env import BiDexHandsEnv

PHYSICS_REVISION = 2
"""Counts changes after which the same actions lead elsewhere; 2: dense matrices, firmer contacts and their margins."""


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
    episode_steps: int | None
    """Control steps after which an episode is truncated; null: as the original."""
    num_threads: int | None
    """Threads that step a batch; null: the cores that the process may use. Changes no number."""
    render_width: int
    """Pixels."""
    render_height: int
    """Pixels."""

    def validate(self) -> None:
        """Refuse an unknown task."""
        find_task(self.task)
        self.require(
            self.obs_mode == "full" or not self.standardize_obs, "standardize_obs", "false with obs_mode=local"
        )
        steps = self.episode_steps
        self.require(steps is None or steps >= 1, "episode_steps", "null or at least 1")
        self.require(self.num_threads is None or self.num_threads >= 1, "num_threads", "null or at least 1")
        self.require(self.render_width >= 1, "render_width", "at least 1 pixel")
        self.require(self.render_height >= 1, "render_height", "at least 1 pixel")

    @property
    def env_id(self) -> str:
        """The name in results; not to be mistaken for the original's."""
        return f"bidexhands-mujoco/{self.task}"

    def build(self) -> BiDexHandsEnv:
        """One environment, which can be drawn and restored."""
        # Here, because they import PettingZoo, which a config has no need of.
        from envs.bidexhands.env import BiDexHandsEnv
        from envs.bidexhands.pettingzoo_env import BiDexHandsParallelEnv

        env = BiDexHandsParallelEnv(
            self.task,
            physics=self.physics,
            contact_channels=self.contact_channels,
            episode_steps=self.episode_steps,
            width=self.render_width,
            height=self.render_height,
        )
        return BiDexHandsEnv(
            env,
            env_id=self.env_id,
            episode_steps=self.spec.episode_steps,
            obs_mode=self.obs_mode,
            standardize_obs=self.standardize_obs,
            versions=self._versions(),
        )

    def build_vector(self, num_envs: int) -> BiDexHandsVec:
        """`num_envs` environments whose worlds are stepped in threads and observed at once."""
        threads = self.num_threads or threads_of(num_envs)
        batch = BiDexHandsBatch(
            self.task,
            num_envs,
            num_threads=threads,
            physics=self.physics,
            contact_channels=self.contact_channels,
            episode_steps=self.episode_steps,
        )
        return BiDexHandsVec(batch, self.spec, self._builder)

    @property
    def spec(self) -> EnvSpec:
        """That of what is built, without building it."""
        task, builder = find_task(self.task), self._builder
        observer = Observer(task)
        return EnvSpec(
            env_id=self.env_id,
            num_agents=NUM_AGENTS,
            state_dim=observer.state_size,
            obs_sizes=builder.sizes,
            action_sizes=(observer.action_size,) * NUM_AGENTS,
            episode_steps=self.episode_steps or task.episode_steps,
            appends_agent_id=builder.appends_agent_id,
            versions=self._versions(),
        )

    @property
    def _builder(self) -> ObservationBuilder:
        return observation_builder(Observer(find_task(self.task)), self.obs_mode, self.standardize_obs)

    def _versions(self) -> tuple[tuple[str, str], ...]:
        names = ("mujoco", "gymnasium-robotics")
        versions = [(name, importlib.metadata.version(name)) for name in names]
        channels = () if self.contact_channels else (("contact_channels", "zero"),)
        return (*versions, ("physics", f"{self.physics}-{PHYSICS_REVISION}"), *channels)
