"""ShadowHandScissors: each hand is to take one ring of a pair of scissors on a table, and both to open it."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.objects.scissors import START, add_scissors
from envs.bidexhands.objects.table import add_table
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import BaseDrive, Placement, View
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, Task, joint_positions, object_motion

NEAR, LOST = 0.7, 1.75
"""Sums of finger distances below which opening counts, and from which on the task has failed, metres."""
OPENED = -0.3
"""Angle of the hinge that counts as success, radians."""


class Scissors(Task):
    """The scissors lie flat with their rings towards the hands."""

    name = "scissors"
    original = "ShadowHandScissors"
    episode_steps = 150
    placements = (
        Placement((0.55, 0.2, 0.8), (np.pi, 0.0, 1.57)),
        Placement((0.55, -0.2, 0.8), (np.pi, 0.0, 1.57)),
    )
    drive = BaseDrive(0.5, 0.1)
    hands_collide = True
    shows_palm = True
    view = View((0.85, -0.75, 1.35), (0.12, 0.0, 0.66))
    points = ("right_handle", "left_handle")
    angles = ("hinge",)
    block_size = 19

    def add_objects(self, spec: Any) -> None:
        """The scissors on their table, just above it."""
        add_scissors(spec, (0.0, 0.0, 0.607), rotation.from_euler(0.0, 0.0, 1.57))
        add_table(spec, centre=(0.0, 0.0, 0.3), size=(0.5, 1.0, 0.6))

    def start(self, rng: np.random.Generator) -> Start:
        """Always the same, as in the original: closed."""
        return Start(joint_positions(), object_joints={"hinge": START})

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The scissors' motion, the right and the left ring."""
        return np.concatenate([object_motion(readings), *readings.points.values()], axis=-1)

    def judge(self, readings: Readings, goal: np.ndarray) -> Outcome:
        """2 - F_R - F_L, and 5 (0.59 + angle) while both hands are near."""
        right, left = (readings.points[name] for name in self.points)
        to_right = readings.finger_distance(RIGHT, right)
        to_left = readings.finger_distance(LEFT, left)
        angle = readings.angles["hinge"]
        opening = np.where((to_right < NEAR) & (to_left < NEAR), 5.0 * (0.59 + angle), 0.0)
        return Outcome(
            reward=2.0 - to_right - to_left + opening,
            failed=(to_right >= LOST) | (to_left >= LOST) | (opening < -0.5),
            success=angle > OPENED,
            terms={"right_fingers": -to_right, "left_fingers": -to_left, "opening": opening},
        )
