"""ShadowHandBottleCap: the left hand is to hold a bottle in the air while the right one pulls off its cap."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.objects.bottle import add_bottle
from envs.bidexhands.objects.table import add_table
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import BaseDrive, Placement, View
from envs.bidexhands.task import LEFT, RIGHT, Outcome, Start, Task, joint_positions, object_motion

NEAR = 0.3
"""Sum of finger distances up to which raising the cap counts, metres."""
RAISED = 0.03
"""Distance of the cap's origin from the bottle's that counts as success, metres."""


class BottleCap(Task):
    """The bottle leans back in the left hand's reach, the cap towards the right hand."""

    name = "bottle-cap"
    original = "ShadowHandBottleCap"
    episode_steps = 125
    random_start = False
    placements = (
        Placement((0.0, -1.05, 0.5), (0.5, np.pi, np.pi)),
        Placement((0.0, -0.25, 0.45), (0.0, 0.87, 0.0)),
    )
    drive = BaseDrive(0.1, 0.1)
    hands_collide = True
    shows_palm = True
    view = View((0.75, -0.75, 1.0), (0.0, -0.62, 0.52))
    points = ("bottle", "cap_reference", "cap")
    angles = ("cap_slide",)
    block_size = 22

    def add_objects(self, spec: Any) -> None:
        """The bottle, and a table far below."""
        add_bottle(spec, (0.0, -0.6, 0.5), rotation.from_euler(0.0, -0.7, 0.0))
        add_table(spec, centre=(0.0, -0.6, 0.05), size=(0.3, 0.3, 0.1))

    def start(self, rng: np.random.Generator) -> Start:
        """Always the same, as in the original: the thumbs bent away."""
        return Start(joint_positions(THJ4=-1.04, THJ3=1.2, THJ0=-1.57))

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The bottle's motion, its origin again, the cap's reference and the cap."""
        return np.concatenate([object_motion(readings), *readings.points.values()], axis=-1)

    def judge(self, readings: Readings, goal: np.ndarray) -> Outcome:
        """2 - F_R - |bottle - left palm|, and 30 |cap - bottle| while the right hand is at the cap."""
        bottle, reference, cap = (readings.points[name] for name in self.points)
        to_cap = readings.finger_distance(RIGHT, reference)
        to_palm = np.linalg.norm(bottle - readings.palm_point[:, LEFT], axis=-1)
        raised = np.linalg.norm(cap - bottle, axis=-1)
        raising = np.where(to_cap <= NEAR, 30.0 * raised, 0.0)
        right_palm_away = np.linalg.norm(reference - readings.palm_point[:, RIGHT], axis=-1)
        return Outcome(
            reward=2.0 - to_cap - to_palm + raising,
            failed=(reference[:, 2] <= 0.5) | (right_palm_away >= 0.5) | (to_palm >= 0.2),
            success=raised > RAISED,
            terms={"right_fingers": -to_cap, "left_palm": -to_palm, "raising": raising},
        )
