"""Script of the bottle: the left hand closes around it, the right one pinches the cap and both move apart.

The hands are slow here, 55 mm/s: two of the task's two seconds leave 0.1 m. As there is no thread, nothing is twisted.
"""

from __future__ import annotations

import numpy as np

from envs.bidexhands.readings import Readings
from envs.bidexhands.scripted.control import Pose, bent, blend, controllers, joined, pinch, posture, progress
from envs.bidexhands.task import LEFT, RIGHT, Task

_CAP_HEIGHT, _REFERENCE_HEIGHT = 0.1444, 0.15
"""Of the closed cap's middle and of the cap reference on the bottle's axis, metres."""


class LiftCap:
    """While the left hand waits, the right one goes to where its pinch surrounds the cap."""

    CLOSING, CLOSED = 60, 75
    """Steps after which the right fingers begin to close, and lift."""
    LIFTED = 0.038
    """Slide of the cap from which on the pinch stays around it, metres; 0.028 is a success."""
    AHEAD = 0.1
    """How far ahead of itself a hand aims when it pulls, metres: as fast as it can."""

    def __init__(self, task: Task) -> None:
        self._controllers = controllers(task)
        self._start = posture(THJ4=-1.04, THJ3=1.2, THJ0=-1.57)
        self._hold = bent(1.571, 1.571, THJ4=-1.04, THJ3=1.2, THJ0=-1.571)
        self._open = pinch(knuckle=0.9, middle=0.3, THJ3=1.0, THJ2=-0.1, THJ1=-0.3)
        self._closed = pinch(knuckle=1.25, middle=0.6, THJ3=1.222, THJ2=0.209, THJ1=0.524)

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,26]."""
        right, left = self._controllers
        axis = (readings.points["cap_reference"] - readings.points["bottle"]) / _REFERENCE_HEIGHT
        slide = readings.angles["cap_slide"]
        to_cap = readings.points["bottle"] + (_CAP_HEIGHT + slide)[:, None] * axis - _pinched(readings)
        lifts = ((elapsed >= self.CLOSED) & (slide < self.LIFTED))[:, None]
        straight = np.zeros(3)
        still = left(readings, LEFT, Pose(shift=(0.0, -0.01, 0.0)))
        away = left.along(readings, LEFT, -self.AHEAD * axis, straight)
        bases = (
            right.along(readings, RIGHT, np.where(lifts, self.AHEAD * axis, to_cap), straight),
            np.where(lifts, away, still),
        )
        fingers = blend(self._open, self._closed, progress(elapsed, self.CLOSING, self.CLOSED))
        return joined(bases, (np.where((elapsed < 5)[:, None], self._start, fingers), self._hold))


def _pinched(readings: Readings) -> np.ndarray:
    """[R,3] the middle between the right thumb and the first two fingers."""
    tips = readings.tip_point[:, RIGHT]
    return (tips[:, 4] + tips[:, :2].mean(axis=1)) / 2
