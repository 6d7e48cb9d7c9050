"""What a task is: where things are, how an episode begins, what is seen of its object, and what counts.

Rewards and conditions are functions of `Readings` of a whole batch; a task holds no state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from envs.bidexhands.hand import JOINTS
from envs.bidexhands.readings import Readings
from envs.bidexhands.rotation import conjugate, multiply
from envs.bidexhands.scene import BaseDrive, Placement, View

VELOCITY_SCALE = 0.2
"""Of joint and angular velocities in observations."""

RIGHT, LEFT = 0, 1
"""Rows of the hands in `Readings`, and numbers of the agents."""


@dataclasses.dataclass(frozen=True)
class Start:
    """How an episode begins, where that differs from the scene as it was built."""

    joint_position: np.ndarray
    """[24] of both hands, radians."""
    object_pose: np.ndarray | None = None
    """[7] of a free object, quaternion as x, y, z, w."""
    goal: np.ndarray | None = None
    """[7] where the object is to go."""
    object_joints: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Positions of the object's own joints."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a step was worth, in a batch of B worlds."""

    reward: np.ndarray
    """[B], the team's."""
    failed: np.ndarray
    """[B] bool: the task ends here."""
    success: np.ndarray
    """[B] bool: the aim is reached at this moment; the episode goes on."""
    terms: Mapping[str, np.ndarray]
    """[B] each: what the reward is made of."""


class Task(Protocol):
    """One of Bi-DexHands' tasks."""

    name: str
    """As in `bidexhands-mujoco/NAME`."""
    original: str
    """Its name in Bi-DexHands."""
    episode_steps: int
    """Control steps after which an episode is truncated."""
    random_start: bool
    """Whether episodes begin differently."""
    placements: tuple[Placement, Placement]
    """Of the right and the left hand."""
    drive: BaseDrive | None
    """Of the hands' bases; None where they are fixed."""
    hands_collide: bool
    """Whether the hands can touch each other."""
    shows_palm: bool
    """Whether a floating hand observes its palm point; False: the position of its base."""
    view: View
    """Of the camera."""
    points: tuple[str, ...]
    """Sites of its objects that are read."""
    angles: tuple[str, ...]
    """Joints of its objects that are read."""
    block_size: int
    """Numbers that both agents observe of the object."""

    def add_objects(self, spec: Any) -> None:
        """Put its objects into the scene `spec`; one body is called `object`."""
        ...

    def start(self, rng: np.random.Generator) -> Start:
        """The beginning of an episode."""
        ...

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The task's part [B, block_size] of the observation; `goal` [B,7] (zeros where there is none)."""
        ...

    def judge(self, readings: Readings, goal: np.ndarray) -> Outcome:
        """Reward, failure and success."""
        ...


def joint_positions(**named: float) -> np.ndarray:
    """[24] joint positions, zero but for those named."""
    return np.array([named.get(name, 0.0) for name in JOINTS])


def object_motion(readings: Readings) -> np.ndarray:
    """[B,13] pose, linear velocity and scaled angular velocity of the object's root."""
    velocity = readings.object_velocity * np.repeat([1.0, VELOCITY_SCALE], 3)
    return np.concatenate([readings.object_pose, velocity], axis=-1)


def object_and_goal(readings: Readings, goal: np.ndarray) -> np.ndarray:
    """[B,24] the object's motion, the goal's pose, and the rotation from the goal to the object."""
    difference = multiply(readings.object_pose[:, 3:], conjugate(goal[:, 3:]))
    return np.concatenate([object_motion(readings), goal, difference], axis=-1)
