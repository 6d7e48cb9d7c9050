"""ShadowHandDoorOpenInward and -Outward: both panels of a double door are to be opened, by pulling or by pushing."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.objects.door import add_door
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import BaseDrive, Placement, View
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, Task, joint_positions, object_motion

NEAR, LOST = 0.5, 1.5
"""Sums of finger distances below which opening counts, and from which on the task has failed, metres."""
OPENED = 0.5
"""Distance across the door between both handles that counts as success, metres."""


class _DoorOpen(Task):
    """What both directions share."""

    episode_steps = 250
    random_start = False
    placements = (
        Placement((0.55, 0.2, 0.6), (np.pi, 1.57, 1.57)),
        Placement((0.55, -0.2, 0.6), (np.pi, -1.57, 1.57)),
    )
    drive = BaseDrive(0.5, 0.5)
    hands_collide = True
    shows_palm = True
    view = View((1.15, -0.75, 1.45), (0.10, 0.0, 0.68))
    points = ("left_handle", "right_handle")
    angles = ("right_hinge", "left_hinge")
    block_size = 19
    door_position = (0.0, 0.0, 0.7)
    door_rotation: np.ndarray
    handle_depth: float

    def add_objects(self, spec: Any) -> None:
        """The door."""
        add_door(spec, self.door_position, self.door_rotation, self.handle_depth)

    def start(self, rng: np.random.Generator) -> Start:
        """Always the same, as in the original."""
        return Start(joint_positions())

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The door's root (constant), the left and the right handle; not the hinges' angles."""
        return np.concatenate([object_motion(readings), *readings.points.values()], axis=-1)

    def judge(self, readings: Readings, goal: np.ndarray) -> Outcome:
        """2 - F_R - F_L, and twice the handles' distance across the door while both hands are near theirs."""
        right, left = readings.points["right_handle"], readings.points["left_handle"]
        to_right = readings.finger_distance(RIGHT, right)
        to_left = readings.finger_distance(LEFT, left)
        apart = np.abs(right[:, 1] - left[:, 1])
        opening = np.where((to_right < NEAR) & (to_left < NEAR), 2.0 * apart, 0.0)
        return Outcome(
            reward=2.0 - to_right - to_left + opening,
            failed=(to_right >= LOST) | (to_left >= LOST),
            success=apart > OPENED,
            terms={"right_fingers": -to_right, "left_fingers": -to_left, "opening": opening},
        )


class DoorOpenInward(_DoorOpen):
    """The panels swing towards the hands: they must be pulled."""

    name = "door-open-inward"
    original = "ShadowHandDoorOpenInward"
    door_rotation = rotation.from_euler(0.0, np.pi, 0.0)
    handle_depth = 0.04


class DoorOpenOutward(_DoorOpen):
    """The panels swing away from the hands: they can be pushed."""

    name = "door-open-outward"
    original = "ShadowHandDoorOpenOutward"
    door_rotation = rotation.from_euler(0.0, 0.0, 0.0)
    handle_depth = -0.04
