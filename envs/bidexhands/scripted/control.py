"""What scripts are made of: postures of the fingers, and a controller that brings a floating hand to a place.

A hand's base behaves like a strongly damped mass: within one control step its speed is proportional to the action, so
a proportional controller of the position is all it takes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.hand import ACTUATED, JOINTS, LOWER, MASS, MEAN_INERTIA, UPPER
from envs.bidexhands.readings import Readings
from envs.bidexhands.scene import CENTRE, FINE, BaseDrive, Placement
from envs.bidexhands.task import Task

MOTORS = tuple(JOINTS[index] for index in ACTUATED)
"""Names of the 20 motors in the order of actions."""
_LOWER, _UPPER = LOWER[list(ACTUATED)], UPPER[list(ACTUATED)]

GAIN = 15.0
"""Speed that is asked for per distance that is left, 1/s: the rest of a way is halved in three control steps."""

Vector = tuple[float, float, float]


def posture(**angles: float) -> np.ndarray:
    """Motor actions [20] for joint targets in radians, clipped to their ranges; joints that are not named aim at 0."""
    targets = np.array([angles.get(name, 0.0) for name in MOTORS])
    return np.clip(2.0 * (targets - _LOWER) / (_UPPER - _LOWER) - 1.0, -1.0, 1.0)


def bent(knuckle: float, middle: float, **others: float) -> np.ndarray:
    """A `posture` with all four fingers bent alike: `knuckle` (J2) and `middle` (J1, which J0 follows), radians."""
    fingers = ("FFJ", "MFJ", "RFJ", "LFJ")
    angles = {f"{finger}2": knuckle for finger in fingers} | {f"{finger}1": middle for finger in fingers}
    return posture(**(angles | others))


def pinch(knuckle: float, middle: float, **thumb: float) -> np.ndarray:
    """Motors [20] with the four fingers bent alike and their tips close together, the thumb turned to face them."""
    bends = {name: knuckle for name in MOTORS if name.endswith("J2") and not name.startswith("TH")}
    bends |= {name: middle for name in MOTORS if name.endswith("J1") and name[:2] not in ("TH", "WR")}
    return posture(FFJ3=0.349, MFJ3=0.349, RFJ3=-0.349, THJ4=0.58, **bends, **thumb)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where a hand is to be, against its start and in world axes."""

    shift: Vector = (0.0, 0.0, 0.0)
    """Metres, of its centre of mass."""
    turn: Vector = (0.0, 0.0, 0.0)
    """A rotation vector, radians, about its centre of mass."""
    strength: float = 1.0
    """Of the force, at most; a share of what the action can do."""


class HandController:
    """Brings one floating hand to poses; for hands at `placement` at the start, moved by `drive`."""

    def __init__(self, placement: Placement, drive: BaseDrive) -> None:
        self._quaternion = placement.quaternion
        self._centre = np.array(placement.position) + rotation.rotate(self._quaternion, np.array(CENTRE))
        self._top_speed = drive.force / (MASS * FINE.base_damping)
        self._top_turn = drive.torque / (MEAN_INERTIA * FINE.base_damping)

    def __call__(self, readings: Readings, hand: int, pose: Pose) -> np.ndarray:
        """Force and torque [R,6] in [-1, 1] of `hand` (0 right, 1 left) towards `pose`."""
        return self.to(readings, hand, np.array(pose.shift), np.array(pose.turn), pose.strength)

    def to(
        self, readings: Readings, hand: int, shift: np.ndarray, turn: np.ndarray, strength: float = 1.0
    ) -> np.ndarray:
        """As calling it, with a `shift` and a `turn` of each row: [R,3] or [3]."""
        quaternion = readings.base_quaternion[:, hand]
        to_centre = rotation.rotate(quaternion, np.broadcast_to(CENTRE, (len(quaternion), 3)))
        way = self._centre + shift - readings.base_position[:, hand] - to_centre
        return self.along(readings, hand, way, turn, strength)

    def along(
        self, readings: Readings, hand: int, way: np.ndarray, turn: np.ndarray, strength: float = 1.0
    ) -> np.ndarray:
        """As calling it, by the `way` [R,3] that is left to go instead of a place."""
        quaternion = readings.base_quaternion[:, hand]
        goal = rotation.multiply(_from_vector(np.asarray(turn)), np.broadcast_to(self._quaternion, quaternion.shape))
        left = _to_vector(rotation.multiply(goal, rotation.conjugate(quaternion)))
        force = _shortened(GAIN * way / self._top_speed, strength)
        return np.concatenate([force, _shortened(GAIN * left / self._top_turn, 1.0)], axis=-1)


def controllers(task: Task) -> tuple[HandController, HandController]:
    """Of the right and the left hand of a task whose hands float."""
    assert task.drive is not None
    right, left = (HandController(placement, task.drive) for placement in task.placements)
    return right, left


def joined(bases: tuple[np.ndarray, np.ndarray], motors: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The action [R,2,26] of both hands (right, left) from `bases` [R,6] and `motors` [20] or [R,20]."""
    hands = [
        np.concatenate([base, np.broadcast_to(motor, (len(base), len(MOTORS)))], axis=-1)
        for base, motor in zip(bases, motors, strict=True)
    ]
    return np.stack(hands, axis=1)


def progress(elapsed: np.ndarray | int, first: float, last: float) -> np.ndarray:
    """How much of the steps from `first` to `last` is over: [..] in [0, 1]."""
    return np.clip((np.asarray(elapsed) - first) / (last - first), 0.0, 1.0)


def blend(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    """[R,n] from `start` [n] to `end` [n], by `share` [R] in [0, 1]."""
    return start + share[..., None] * (end - start)


def _shortened(action: np.ndarray, length: float) -> np.ndarray:
    """`action` [R,3] with its direction kept and no entry beyond `length`."""
    largest = np.abs(action).max(axis=-1, keepdims=True)
    return action * np.minimum(1.0, length / np.maximum(largest, 1e-9))


def _from_vector(turn: np.ndarray) -> np.ndarray:
    """Quaternions [..,4] of rotation vectors [..,3]."""
    angle = np.linalg.norm(turn, axis=-1, keepdims=True)
    return np.concatenate([turn * np.sinc(angle / (2 * np.pi)) / 2, np.cos(angle / 2)], axis=-1)


def _to_vector(quaternion: np.ndarray) -> np.ndarray:
    """Rotation vectors [..,3], at most pi long, of quaternions [..,4]."""
    sign = np.where(quaternion[..., 3:] < 0.0, -1.0, 1.0)
    axis, scalar = sign * quaternion[..., :3], sign * quaternion[..., 3:]
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    return axis * np.where(sine > 1e-9, 2 * np.arctan2(sine, scalar) / np.maximum(sine, 1e-9), 2.0)
