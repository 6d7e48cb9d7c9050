"""Scripts of both doors: hands go to their handles, then push a panel's face, or hook a bar and swing with it.

A hand aims at places that move with the panel, so that its fingers stay near the handle, which the reward pays for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import SIDES
from envs.bidexhands.scripted.control import bent, blend, controllers, joined, progress
from envs.bidexhands.task import Task

_OUTWARD, _INWARD = -1.0, 1.0
"""Which way panels swing along the world's x."""


class _Panel(NamedTuple):
    """Where a panel is: each [R,3], but `angle` [R]."""

    handle: np.ndarray
    swing: np.ndarray
    """Unit vector that its handle moves along when it opens."""
    edge: np.ndarray
    """Unit vector along the panel, from its hinge to its free edge."""
    angle: np.ndarray


class PushDoors:
    """Fingers slightly bent, their tips against the panels below the bars, pushing at right angles to the panels."""

    def __init__(self, task: Task) -> None:
        self._controllers = controllers(task)
        self._motors = bent(0.35, 0.35, THJ4=0.5)

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,26]."""
        push = progress(elapsed, 20, 30)[:, None]
        bases = []
        for hand, controller in enumerate(self._controllers):
            panel = _panel(readings, hand, _OUTWARD)
            tips = readings.tip_point[:, hand, :4].mean(axis=1)  # without the thumb
            depth = -0.04 + 0.19 * push  # first in front of the handle, then far behind it
            way = panel.handle + depth * panel.swing - 0.03 * panel.edge - tips
            bases.append(controller.along(readings, hand, way, np.zeros(3)))
        return joined((bases[0], bases[1]), (self._motors, self._motors))


class PullDoors:
    """Fingers reach past the bars, close behind them, and pull while the hands turn with the panels."""

    REACHED, CLOSED = 35, 55
    """Steps after which fingers begin to close, and are closed."""
    PULL = 0.03
    """How far ahead of the bar the hand aims, metres: with the controller's gain, its speed."""
    OPEN = 1.45
    """Angle from which on it only holds, radians."""

    def __init__(self, task: Task) -> None:
        self._controllers = controllers(task)
        self._straight = bent(0.0, 0.0, THJ4=0.3)
        self._hooked = bent(0.5, 1.57, THJ4=0.3)

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,26]."""
        motors = blend(self._straight, self._hooked, progress(elapsed, self.REACHED, self.CLOSED))
        bases = []
        for hand, controller in enumerate(self._controllers):
            panel = _panel(readings, hand, _INWARD)
            turn = np.zeros_like(panel.handle)
            turn[:, 2] = panel.angle if hand == 0 else -panel.angle
            bases.append(controller.along(readings, hand, self._way(readings, hand, panel, elapsed), turn))
        return joined((bases[0], bases[1]), (motors, motors))

    def _way(self, readings: Readings, hand: int, panel: _Panel, elapsed: np.ndarray) -> np.ndarray:
        """[R,3] for the palm: beside the bar and above the panel; once it is grasped, along its swing."""
        above = np.where(elapsed < self.REACHED, 0.115, 0.095)[:, None]
        to_place = panel.handle + above * panel.swing - 0.045 * panel.edge - readings.palm_point[:, hand]
        beside = to_place - (to_place * panel.swing).sum(-1, keepdims=True) * panel.swing
        pull = np.where(panel.angle < self.OPEN, self.PULL, 0.0)[:, None]
        return np.where((elapsed < self.CLOSED)[:, None], to_place, beside + pull * panel.swing)


def _panel(readings: Readings, hand: int, swing: float) -> _Panel:
    """The panel of `hand`: the right one hangs at +y, its free edge points to -y when closed."""
    side, sign = SIDES[hand], 1.0 if hand == 0 else -1.0
    angle = readings.angles[f"{side}_hinge"]
    sine, cosine, zero = np.sin(angle), np.cos(angle), np.zeros_like(angle)
    return _Panel(
        readings.points[f"{side}_handle"],
        np.stack([swing * cosine, sign * sine, zero], axis=-1),
        np.stack([swing * sine, -sign * cosine, zero], axis=-1),
        angle,
    )
