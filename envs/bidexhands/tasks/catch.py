"""ShadowHandOver, -CatchUnderarm and -CatchAbreast: an egg is to go from the right hand into the left one."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.hand import LOWER, UPPER
from envs.bidexhands.objects.egg import add_egg
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import BaseDrive, Placement, View
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, Task, joint_positions, object_and_goal

CAUGHT = 0.03
"""Distance from the goal that counts as success, metres."""


class _Throw(Task):
    """What the three share: the reward, the egg, and how an episode begins."""

    random_start = True
    hands_collide = False
    shows_palm = False
    points = ()
    angles = ()
    block_size = 24
    egg: tuple[float, float, float]
    """Where it starts, metres."""
    goal_offset: float
    """From there to the goal along y."""
    lowest: float
    """Height of the egg at which the task has failed, metres."""
    position_noise: float
    """Largest deviation of the egg's start along each axis, metres."""
    joint_noise: float
    """Of the joints' start, as a share of their limits."""

    @property
    def goal_position(self) -> tuple[float, float, float]:
        """Above the left palm."""
        x, y, z = self.egg
        return (x, y + self.goal_offset, z)

    def add_objects(self, spec: Any) -> None:
        """The egg, and a twin that shows the goal."""
        add_egg(spec, self.egg, self.goal_position)

    def start(self, rng: np.random.Generator) -> Start:
        """The egg near its place; egg, goal and joints turned at random. Joints may begin outside their limits."""
        position = self.egg + self.position_noise * rng.uniform(-1.0, 1.0, 3)
        joints = joint_positions()
        if self.joint_noise > 0.0:
            joints = self.joint_noise * (LOWER + (UPPER - LOWER) * rng.uniform(-1.0, 1.0, len(LOWER)))
        return Start(
            joint_position=joints,
            object_pose=np.concatenate([position, _random_rotation(rng)]),
            goal=np.concatenate([self.goal_position, _random_rotation(rng)]),
        )

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The egg's motion, the goal, and how the egg is turned against it."""
        return object_and_goal(readings, goal)

    def judge(self, readings: Readings, goal: np.ndarray) -> Outcome:
        """exp(-0.2 (50 d + theta)): d the distance to the goal, theta the angle between both orientations."""
        distance = np.linalg.norm(readings.object_pose[:, :3] - goal[:, :3], axis=-1)
        angle = rotation.angle_between(readings.object_pose[:, 3:], goal[:, 3:])
        return Outcome(
            reward=np.exp(-0.2 * (50.0 * distance + angle)),
            failed=self._has_failed(readings),
            success=distance < CAUGHT,
            terms={"distance": -distance, "angle": -angle},
        )

    def _has_failed(self, readings: Readings) -> np.ndarray:
        return readings.object_pose[:, 2] <= self.lowest


class Over(_Throw):
    """Hands fixed in space, finger tips a few centimetres apart, palms up."""

    name = "over"
    original = "ShadowHandOver"
    episode_steps = 75
    placements = (Placement((0.0, 0.0, 0.5), (0.0, 0.0, 0.0)), Placement((0.0, -1.0, 0.5), (0.0, 0.0, np.pi)))
    drive = None
    view = View((0.75, -0.85, 0.95), (0.0, -0.5, 0.52))
    egg = (0.0, -0.39, 0.54)
    goal_offset = -0.25
    lowest = 0.2
    position_noise = 0.01
    joint_noise = 0.2


class CatchUnderarm(Over):
    """As Over, with hands that float and stand further apart."""

    name = "catch-underarm"
    original = "ShadowHandCatchUnderarm"
    placements = (Placement((0.0, 0.0, 0.5), (0.0, 0.0, 0.0)), Placement((0.0, -1.15, 0.5), (0.0, 0.0, np.pi)))
    drive = BaseDrive(0.05, 0.5)
    view = View((0.80, -0.95, 1.00), (0.0, -0.57, 0.52))
    goal_offset = -0.4
    lowest = 0.1


class CatchAbreast(_Throw):
    """Floating hands side by side, fingers forward, slightly turned towards each other."""

    name = "catch-abreast"
    original = "ShadowHandCatchAbreast"
    episode_steps = 150
    placements = (
        Placement((0.0, -0.55, 0.5), (0.0, 0.3925, -1.57)),
        Placement((0.0, -1.15, 0.5), (0.0, -0.3925, -1.57)),
    )
    drive = BaseDrive(0.5, 1.0)
    view = View((0.55, -0.85, 1.15), (-0.30, -0.85, 0.50))
    egg = (-0.39, -0.55, 0.54)
    goal_offset = -0.6
    lowest = 0.2
    position_noise = 0.0
    joint_noise = 0.0
    palms = ((-0.3, -0.55, 0.5), (-0.3, -1.15, 0.5))
    """From which the origins of the palms may not move 0.1 m away."""

    def _has_failed(self, readings: Readings) -> np.ndarray:
        away = np.linalg.norm(readings.palm_position - np.array(self.palms), axis=-1)  # [B, 2]
        return super()._has_failed(readings) | (away[:, RIGHT] >= 0.1) | (away[:, LEFT] >= 0.1)


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    """By up to pi about y, then by up to pi about x: [4]. Not uniform over rotations, as in the originals."""
    about_x, about_y = np.pi * rng.uniform(-1.0, 1.0, 2)
    return rotation.multiply(rotation.about_axis(0, about_x), rotation.about_axis(1, about_y))
