"""MAMuJoCo's adapter that can go back to an earlier moment of an episode, to try other actions from there.

MuJoCo's own integration state is not enough: Gymnasium's bodies read quantities that the last step left behind (body
positions for the speed, contact forces, inertias), so all of `mjData` is kept.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from envs.pettingzoo import PettingZooEnv

if TYPE_CHECKING:
    from gymnasium.wrappers import TimeLimit


@dataclasses.dataclass(frozen=True)
class MamujocoSnapshot:
    """A moment of an episode: the simulation, and the counters of the three layers above it."""

    data: Any
    """A copy of MuJoCo's `mjData`."""
    elapsed_steps: int | None
    """Of Gymnasium's time limit."""
    agents: list[str]
    """Who is alive, in PettingZoo's view."""
    step_count: int | None
    """Of the adapter; None between episodes."""


class MamujocoEnv(PettingZooEnv):
    """A `RestorableEnv` around `gymnasium_robotics.mamujoco_v1`; arguments as `PettingZooEnv`.

    The bodies draw chance at a reset only, which is given its seed, so no generator needs to be kept.
    """

    def snapshot(self) -> MamujocoSnapshot:
        """A copy of the simulation and of every step counter."""
        return MamujocoSnapshot(
            data=copy.copy(self._body.data),
            elapsed_steps=self._time_limit._elapsed_steps,
            agents=list(self._env.agents),
            step_count=self._step_count,
        )

    def restore(self, snapshot: MamujocoSnapshot) -> None:
        """Write `snapshot` back into the simulation and the counters."""
        mujoco = importlib.import_module("mujoco")  # its functions are bound at run time, unknown to the type checker
        mujoco.mj_copyData(self._body.data, self._body.model, snapshot.data)
        self._time_limit._elapsed_steps = snapshot.elapsed_steps
        self._env.agents = list(snapshot.agents)
        self._step_count = snapshot.step_count

    @property
    def _single_agent_env(self) -> Any:
        """Gymnasium's environment in its wrappers, all actuators in one action."""
        env: Any = self._env
        return env.single_agent_env

    @property
    def _body(self) -> Any:
        return self._single_agent_env.unwrapped

    @property
    def _time_limit(self) -> TimeLimit[Any, Any]:
        from gymnasium.wrappers import TimeLimit

        layer = self._single_agent_env
        while not isinstance(layer, TimeLimit):
            layer = layer.env
        return layer
