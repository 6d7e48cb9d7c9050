"""Script of the pen: both hands come down on it, pinch cap and body between fingers and thumb, and part."""

from __future__ import annotations

import numpy as np

from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import SIDES
from envs.bidexhands.scripted.control import blend, controllers, joined, pinch, progress
from envs.bidexhands.task import Task


class PartPen:
    """Finger tips in a row on the far side of the pen, the thumb's tip on the near side, 65 mm below the palm."""

    LOWERED, CLOSING, CLOSED = 38, 44, 56
    """Steps after which the hands are down, begin to close, and pull."""
    ABOVE, PULL = 0.068, 0.015
    """Of the palm over the pen's axis, and how far ahead of itself a pulling hand aims: metres."""
    BESIDE = {"right": 0.013, "left": 0.025}
    """Of the palm's point, along y from the handle: the pinch is on that side of the palm."""

    def __init__(self, task: Task) -> None:
        self._controllers = controllers(task)
        self._open = pinch(knuckle=1.0, middle=0.35, THJ3=1.1, THJ2=-0.1, THJ1=-0.1)
        self._closed = pinch(knuckle=1.3, middle=0.6, THJ3=1.222, THJ2=0.209, THJ1=0.524)
        self._table = 0.612  # height of the pen's axis on it

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,26]."""
        motors = blend(self._open, self._closed, progress(elapsed, self.CLOSING, self.CLOSED))
        turn = np.zeros(3)
        bases = [
            controller.along(readings, hand, self._way(readings, hand, elapsed), turn)
            for hand, controller in enumerate(self._controllers)
        ]
        return joined((bases[0], bases[1]), (motors, motors))

    def _way(self, readings: Readings, hand: int, elapsed: np.ndarray) -> np.ndarray:
        """[R,3] for the palm: onto the pen, then away from the other hand."""
        side, outward = SIDES[hand], 1.0 if hand == 0 else -1.0
        handle, palm = readings.points[f"{side}_handle"], readings.palm_point[:, hand]
        above = self.ABOVE + 0.06 * (1.0 - progress(elapsed, 10, self.LOWERED))
        onto = handle + np.stack([0.008 + 0 * above, self.BESIDE[side] + 0 * above, above], axis=-1) - palm
        # Fingers are stronger than thumbs and draw the pen towards the table's edge: follow it only in part.
        near = 0.8 * handle[:, 0] + 0.004 - palm[:, 0]
        apart = np.stack([near, 0 * near + outward * self.PULL, self._table + self.ABOVE - palm[:, 2]], axis=-1)
        return np.where((elapsed < self.CLOSED)[:, None], onto, apart)
