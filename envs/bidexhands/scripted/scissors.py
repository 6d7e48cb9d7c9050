"""Script of the scissors: each hand dips one finger into its ring, and both move apart."""

from __future__ import annotations

import numpy as np

from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import SIDES
from envs.bidexhands.scripted.control import bent, controllers, joined, progress
from envs.bidexhands.task import Task

_FINGERS = (0, 3)
"""Of the right hand the first, of the left one the little finger: those next to the other hand."""


class SpreadScissors:
    """The other fingers stay straight, above everything."""

    ABOVE, LOWERED, PUSHING = 30, 45, 50
    """Steps after which the fingers are over the rings, in them, and push."""
    CLEARANCE, DEPTH = 0.05, 0.006
    """Of the finger's point above the ring: before and after it is lowered, metres."""
    PUSH = 0.05
    """How far beyond the ring's middle the finger aims, metres."""
    OPEN = 0.2
    """Angle of the hinge from which on the fingers stay where the rings are, radians."""

    def __init__(self, task: Task) -> None:
        self._controllers = controllers(task)
        away = {"THJ4": -1.04, "THJ3": 1.2, "THJ0": -1.57}
        self._motors = (
            bent(0.1, 0.1, FFJ2=1.4, FFJ1=0.4, FFJ3=0.0, **away),
            bent(0.1, 0.1, LFJ2=1.4, LFJ1=0.4, LFJ3=0.0, **away),
        )

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,26]."""
        lowered = progress(elapsed, self.ABOVE, self.LOWERED)
        height = self.CLEARANCE + (self.DEPTH - self.CLEARANCE) * lowered
        pushes = (elapsed >= self.PUSHING) & (readings.angles["hinge"] < self.OPEN)
        push = np.where(pushes, self.PUSH, 0.0)
        bases = []
        for hand, controller in enumerate(self._controllers):
            ring, outward = readings.points[f"{SIDES[hand]}_handle"], 1.0 if hand == 0 else -1.0
            aim = ring + np.stack([0 * height, outward * push, height], axis=-1)
            way = aim - readings.tip_point[:, hand, _FINGERS[hand]]
            bases.append(controller.along(readings, hand, way, np.zeros(3)))
        return joined((bases[0], bases[1]), self._motors)
