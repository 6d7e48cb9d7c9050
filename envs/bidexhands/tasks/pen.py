"""ShadowHandPen: each hand is to take one end of a pen on a table, and both to pull it open."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.objects.pen import add_pen
from envs.bidexhands.readings import Readings
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, joint_positions
from envs.bidexhands.tasks.table_top import TableTop

NEAR, LOST = 0.75, 1.5
"""Sums of finger distances below which opening counts, and from which on the task has failed, metres."""
OPENED = 0.3
"""Distance between both handles that counts as success, metres; 0.17 when closed."""


class Pen(TableTop):
    """The pen lies across in front of the hands, its cap to the right one. The original starts it half in the table."""

    name = "pen"
    original = "ShadowHandPen"
    episode_steps = 125
    angles = ("cap_slide",)

    def add_objects(self, spec: Any) -> None:
        """The pen on its table."""
        add_pen(spec, (0.0, 0.0, 0.612), rotation.from_euler(1.57, 1.57, 0.0))
        super().add_objects(spec)

    def start(self, rng: np.random.Generator) -> Start:
        """Always the same, as in the original."""
        return Start(joint_positions())

    def judge(self, readings: Readings, goal: np.ndarray) -> Outcome:
        """exp(-10 F_R) + exp(-10 F_L), and 5 D - 0.8 while both hands are near, D the distance between the handles."""
        right, left = (readings.points[name] for name in self.points)
        to_right = readings.finger_distance(RIGHT, right)
        to_left = readings.finger_distance(LEFT, left)
        apart = np.linalg.norm(right - left, axis=-1)
        near_right, near_left = np.exp(-10.0 * to_right), np.exp(-10.0 * to_left)
        opening = np.where((to_right < NEAR) & (to_left < NEAR), 5.0 * apart - 0.8, 0.0)
        return Outcome(
            reward=near_right + near_left + opening,
            failed=(to_right >= LOST) | (to_left >= LOST),
            success=apart > OPENED,
            terms={"right_fingers": near_right, "left_fingers": near_left, "opening": opening},
        )
