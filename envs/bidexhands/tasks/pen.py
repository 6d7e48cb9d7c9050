"""ShadowHandPen: each hand is to take one end of a pen on a table, and both to pull it open."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.objects.pen import add_pen
from envs.bidexhands.objects.table import add_table
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import BaseDrive, Placement, View
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, Task, joint_positions, object_motion

NEAR, LOST = 0.75, 1.5
"""Sums of finger distances below which opening counts, and from which on the task has failed, metres."""
OPENED = 0.3
"""Distance between both handles that counts as success, metres; 0.17 when closed."""


class Pen(Task):
    """The pen lies across in front of the hands, its cap to the right one. The original starts it half in the table."""

    name = "pen"
    original = "ShadowHandPen"
    episode_steps = 125
    placements = (
        Placement((0.55, 0.2, 0.8), (np.pi, 0.0, 1.57)),
        Placement((0.55, -0.2, 0.8), (np.pi, 0.0, 1.57)),
    )
    drive = BaseDrive(0.5, 0.1)
    hands_collide = True
    shows_palm = True
    view = View((0.85, -0.75, 1.35), (0.12, 0.0, 0.66))
    points = ("right_handle", "left_handle")
    angles = ("cap_slide",)
    block_size = 19

    def add_objects(self, spec: Any) -> None:
        """The pen on its table."""
        add_pen(spec, (0.0, 0.0, 0.612), rotation.from_euler(1.57, 1.57, 0.0))
        add_table(spec, centre=(0.0, 0.0, 0.3), size=(0.5, 1.0, 0.6))

    def start(self, rng: np.random.Generator) -> Start:
        """Always the same, as in the original."""
        return Start(joint_positions())

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The pen's motion, the handle of the cap (right) and of the body (left)."""
        return np.concatenate([object_motion(readings), *readings.points.values()], axis=-1)

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
