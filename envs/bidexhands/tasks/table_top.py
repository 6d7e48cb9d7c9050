"""What the tasks at a table share: two hands above it, palms down, fingers forward, and one handle for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands.objects.table import add_table
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import BaseDrive, Placement, View
from envs.bidexhands.task import Task, object_motion


class TableTop(Task):
    """A task whose object lies on a table and has the points `right_handle` and `left_handle`."""

    random_start = False
    placements = (
        Placement((0.55, 0.2, 0.8), (np.pi, 0.0, 1.57)),
        Placement((0.55, -0.2, 0.8), (np.pi, 0.0, 1.57)),
    )
    drive = BaseDrive(0.5, 0.1)
    hands_collide = True
    shows_palm = True
    view = View((0.85, -0.75, 1.35), (0.12, 0.0, 0.66))
    points = ("right_handle", "left_handle")
    block_size = 19

    def add_objects(self, spec: Any) -> None:
        """The table, its top at 0.6 m; tasks put their object onto it."""
        add_table(spec, centre=(0.0, 0.0, 0.3), size=(0.5, 1.0, 0.6))

    def observe(self, readings: Readings, goal: np.ndarray) -> np.ndarray:
        """The object's motion, the right and the left handle."""
        return np.concatenate([object_motion(readings), *readings.points.values()], axis=-1)
