"""A batch of copies of one scene, stepped in threads; after each control step every sensor is read at once.

Knows MuJoCo and no task beyond its scene.
"""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.hand import ACTUATED, JOINTS, LOWER, UPPER
from envs.bidexhands.readings import add_sensors
from envs.bidexhands.scene import SIDES, Physics, build_scene, harden
from envs.bidexhands.task import Start, Task
from envs.errors import EnvError


def build_model(task: Task, physics: Physics) -> Any:
    """The compiled `mujoco.MjModel` of `task`, sensors included."""
    spec = build_scene(task.placements, task.drive, task.view, physics, hands_collide=task.hands_collide)
    task.add_objects(spec)
    harden(spec, physics)
    add_sensors(spec, task.points, task.angles)
    return spec.compile()


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A moment of one world."""

    data: Any


class Simulation:
    """B worlds of one model. What happens in a world depends on nothing but its own starts and controls.

    Where one blows up, the step of all worlds that were stepped with it is lost.

    Args:
        model: the compiled scene.
        num_worlds: B.
        num_threads: that step worlds at the same time; 1 steps them in the caller's.
        substeps: physics steps of one control step.
        name: of the task, for messages.
    """

    def __init__(self, model: Any, num_worlds: int, num_threads: int, substeps: int, name: str) -> None:
        self._mujoco = importlib.import_module("mujoco")
        self._model = model
        self._substeps = substeps
        self._name = name
        self._worlds = [self._mujoco.MjData(model) for _ in range(num_worlds)]
        self._joint_address = np.array([model.joint(f"{side}_{j}").qposadr[0] for side in SIDES for j in JOINTS])
        self._forearms = [model.body(f"{side}_forearm").id for side in SIDES]
        self._threads = min(num_threads, num_worlds)
        self._pool = concurrent.futures.ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    def __len__(self) -> int:
        return len(self._worlds)

    @property
    def model(self) -> Any:
        """The compiled scene."""
        return self._model

    def world(self, row: int) -> Any:
        """`mujoco.MjData` of one world."""
        return self._worlds[row]

    def reset(self, row: int, start: Start) -> None:
        """Put world `row` at the beginning of an episode."""
        data = self._worlds[row]
        self._mujoco.mj_resetData(self._model, data)
        data.qpos[self._joint_address] = np.tile(start.joint_position, len(SIDES))
        if start.object_pose is not None:
            address = self._model.joint("object_free").qposadr[0]
            data.qpos[address : address + 3] = start.object_pose[:3]
            data.qpos[address + 3 : address + 7] = rotation.to_wxyz(start.object_pose[3:])
        for name, position in start.object_joints.items():
            data.qpos[self._model.joint(name).qposadr[0]] = position
        if start.goal is not None:
            data.mocap_pos[0] = start.goal[:3]
            data.mocap_quat[0] = rotation.to_wxyz(start.goal[3:])
        data.ctrl[:] = data.qpos[self._joint_address[_ACTUATED_BOTH]]
        self.settle(row)

    def settle(self, row: int) -> None:
        """Compute all that follows from the state of world `row`, after something was written into it."""
        self._mujoco.mj_forward(self._model, self._worlds[row])

    def step(self, rows: Sequence[int], targets: np.ndarray, wrenches: np.ndarray) -> None:
        """One control step of the worlds `rows`.

        Args:
            rows: which worlds.
            targets: [R,40] of the motors, radians: the right hand's, then the left hand's.
            wrenches: [R,2,6] force and torque on the forearms, in world axes, N and N m.

        Raises:
            EnvError: when a world blew up.
        """
        for row, target, wrench in zip(rows, targets, wrenches, strict=True):
            data = self._worlds[row]
            data.ctrl[:] = target
            data.xfrc_applied[self._forearms] = wrench
        if self._pool is None:
            self._advance(rows)
        else:
            shares = [rows[first :: self._threads] for first in range(self._threads)]
            list(self._pool.map(self._advance, [share for share in shares if len(share)]))
        for row in rows:
            self._require_sound(row)

    def sensors(self, rows: Sequence[int]) -> np.ndarray:
        """[R,n] everything that the sensors of the worlds `rows` show."""
        return np.array([self._worlds[row].sensordata for row in rows]).reshape(len(rows), self._model.nsensordata)

    def snapshot(self, row: int) -> Snapshot:
        """World `row` as it is now."""
        return Snapshot(copy.copy(self._worlds[row]))

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Bring world `row` back to `snapshot`."""
        self._mujoco.mj_copyData(self._worlds[row], self._model, snapshot.data)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _advance(self, rows: Sequence[int]) -> None:
        """Substeps whose last half is left out: sensors then show positions and velocities of the very end.

        `mj_step` would leave those of the last physics step's beginning. Forces are those of the last physics step.
        """
        step1, step2, model = self._mujoco.mj_step1, self._mujoco.mj_step2, self._model
        for row in rows:
            data = self._worlds[row]
            for _ in range(self._substeps):
                step2(model, data)
                step1(model, data)

    def _require_sound(self, row: int) -> None:
        data = self._worlds[row]
        if data.warning.number.any():
            names = [str(self._mujoco.mjtWarning(i).name) for i in np.flatnonzero(data.warning.number)]
            data.warning.number[:] = 0
            raise EnvError(
                f"bidexhands-mujoco/{self._name}: the simulation became unstable at {data.time:.2f} s of world {row} "
                f"({', '.join(names)})",
                "env.physics=fine simulates in smaller steps; where it did, report the seed and the actions",
            )


def joint_targets(action: np.ndarray) -> np.ndarray:
    """[..,20] in [-1, 1] as targets of the motors, radians: 0 is the middle of a joint's range."""
    return _MOTOR_LOWER + (action + 1.0) / 2.0 * (_MOTOR_UPPER - _MOTOR_LOWER)


_ONE = np.array(ACTUATED)
_ACTUATED_BOTH = np.concatenate([_ONE, _ONE + len(JOINTS)])
_MOTOR_LOWER, _MOTOR_UPPER = LOWER[_ONE], UPPER[_ONE]
