"""Scripts of the throwing tasks: the right hand goes through three shapes by the clock, the left one closes on the egg.

The shapes were found by the cross-entropy method, from a cupped hand, and are kept to three digits: `throw_shapes.py`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.bidexhands.readings import Readings
from envs.bidexhands.scripted.control import HandController, controllers, joined, posture
from envs.bidexhands.task import LEFT, RIGHT, Task


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a hand aims at for a while; radians and metres."""

    sideways: float
    """The wrist's joint WRJ1."""
    wrist: float
    """WRJ0; negative bends it back."""
    knuckle: float
    """J2 of the four fingers."""
    middle: float
    """J1 of the four fingers."""
    spread: float
    """J3 of the fingers: the little finger's, the first finger's is the opposite."""
    thumb: tuple[float, float, float, float, float]
    """THJ4 to THJ0."""
    turn: tuple[float, float] = (0.0, 0.0)
    """Of a floating hand about the world's x and y, against its start."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of a floating hand, against its start."""

    @property
    def motors(self) -> np.ndarray:
        """[20] in [-1, 1]."""
        fingers = ("FFJ", "MFJ", "RFJ", "LFJ")
        share = (-1.0, -0.33, 0.33, 1.0)
        angles = {f"{finger}3": part * self.spread for finger, part in zip(fingers, share, strict=True)}
        angles |= {f"{finger}2": self.knuckle for finger in fingers} | {f"{finger}1": self.middle for finger in fingers}
        angles |= {f"THJ{4 - index}": angle for index, angle in enumerate(self.thumb)}
        return posture(WRJ1=self.sideways, WRJ0=self.wrist, **angles)


@dataclasses.dataclass(frozen=True)
class Throw:
    """A whole throw and catch."""

    right: tuple[Shape, Shape, Shape]
    """To hold the egg, to wind up, to throw."""
    left: tuple[Shape, Shape]
    """To wait, and to hold what was caught."""
    times: tuple[float, float]
    """Control steps at which the right hand winds up and throws."""
    catch_y: float
    """Where the egg is, along y, when the left hand closes: metres."""


class ThrowEgg:
    """Plays a `Throw`; for fixed and for floating hands."""

    def __init__(self, task: Task, throw: Throw) -> None:
        self._throw = throw
        self._controllers = None if task.drive is None else controllers(task)

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,20], or [R,2,26] where hands float."""
        wind_up, throws = self._throw.times
        right = (elapsed >= wind_up).astype(int) + (elapsed >= max(throws, wind_up + 1))
        left = (readings.object_pose[:, 1] < self._throw.catch_y).astype(int)
        motors = (_choose(self._throw.right, right, "motors"), _choose(self._throw.left, left, "motors"))
        if self._controllers is None:
            return np.stack(motors, axis=1)
        to_right, to_left = self._controllers
        bases = (
            _base(to_right, readings, RIGHT, self._throw.right, right),
            _base(to_left, readings, LEFT, self._throw.left, left),
        )
        return joined(bases, motors)


def _base(
    controller: HandController, readings: Readings, hand: int, shapes: tuple[Shape, ...], chosen: np.ndarray
) -> np.ndarray:
    """[R,6] towards the place of the chosen shape."""
    turn = _choose(shapes, chosen, "turn")
    about = np.concatenate([turn, np.zeros((len(turn), 1))], axis=-1)
    return controller.to(readings, hand, _choose(shapes, chosen, "shift"), about)


def _choose(shapes: tuple[Shape, ...], chosen: np.ndarray, name: str) -> np.ndarray:
    """[R,n] what `name` is in the chosen shape of each row."""
    return np.array([getattr(shape, name) for shape in shapes])[chosen]
