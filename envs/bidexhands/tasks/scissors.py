"""ShadowHandScissors: each hand is to take one ring of a pair of scissors on a table, and both to open it."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.objects.scissors import START, add_scissors
from envs.bidexhands.readings import Readings
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, joint_positions
from envs.bidexhands.tasks.table_top import TableTop

NEAR, LOST = 0.7, 1.75
"""Sums of finger distances below which opening counts, and from which on the task has failed, metres."""
OPENED = -0.3
"""Angle of the hinge that counts as success, radians."""


class Scissors(TableTop):
    """The scissors lie flat with their rings towards the hands."""

    name = "scissors"
    original = "ShadowHandScissors"
    episode_steps = 150
    angles = ("hinge",)

    def add_objects(self, spec: Any) -> None:
        """The scissors on their table, just above it."""
        add_scissors(spec, (0.0, 0.0, 0.607), rotation.from_euler(0.0, 0.0, 1.57))
        super().add_objects(spec)

    def start(self, rng: np.random.Generator) -> Start:
        """Always the same, as in the original: closed."""
        return Start(joint_positions(), object_joints={"hinge": START})

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
