"""What is read from the simulation after a control step, for a whole batch at once.

Every quantity is a MuJoCo sensor; they lie one after the other in `sensordata`, so that one array a world is all that
has to be copied. Positions in metres, quaternions as x, y, z, w, velocities in world axes.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from envs.bidexhands.hand import FINGERS, JOINTS
from envs.bidexhands.rotation import from_wxyz
from envs.bidexhands.scene import SIDES

_NUM_JOINTS, _NUM_TIPS = len(JOINTS), len(FINGERS)
_HAND_SIZES = {
    "joint_position": _NUM_JOINTS,
    "joint_velocity": _NUM_JOINTS,
    "joint_force": _NUM_JOINTS,
    "tip_motion": 13 * _NUM_TIPS,
    "tip_wrench": 6 * _NUM_TIPS,
    "tip_point": 3 * _NUM_TIPS,
    "palm_point": 3,
    "palm_position": 3,
    "base_position": 3,
    "base_quaternion": 4,
}
_HAND_SIZE = sum(_HAND_SIZES.values())
_OBJECT_SIZE = 13


@dataclasses.dataclass(frozen=True)
class Readings:
    """A batch of worlds after a control step. B worlds, two hands (right, left), five fingers (`hand.FINGERS`)."""

    joint_position: np.ndarray
    """[B,2,24] radians."""
    joint_velocity: np.ndarray
    """[B,2,24] radians a second."""
    joint_force: np.ndarray
    """[B,2,24] of the motors, newton metres."""
    tip_motion: np.ndarray
    """[B,2,5,13] of the last links' frames: position, quaternion, linear and angular velocity."""
    tip_wrench: np.ndarray
    """[B,2,5,6] force and torque between the last link and the one before, in its frame, newtons and newton metres."""
    tip_point: np.ndarray
    """[B,2,5,3] the points that distances are measured from."""
    palm_point: np.ndarray
    """[B,2,3]."""
    palm_position: np.ndarray
    """[B,2,3] origin of the palm."""
    base_position: np.ndarray
    """[B,2,3] of the whole hand."""
    base_quaternion: np.ndarray
    """[B,2,4] of the whole hand."""
    object_pose: np.ndarray
    """[B,7] position and quaternion of the object's root."""
    object_velocity: np.ndarray
    """[B,6] linear and angular."""
    points: Mapping[str, np.ndarray]
    """[B,3] each: the task's own points, by name."""
    angles: Mapping[str, np.ndarray]
    """[B] each: the task's own joints, by name."""

    def finger_distance(self, hand: int, target: np.ndarray) -> np.ndarray:
        """The sum of the five distances from the finger tips of `hand` to `target` [B,3]: [B]."""
        return np.linalg.norm(self.tip_point[:, hand] - target[:, None], axis=-1).sum(-1)


def add_sensors(spec: Any, points: Sequence[str], angles: Sequence[str]) -> None:
    """Add every sensor to a scene with a body `object`, sites named `points` and joints named `angles`."""
    mujoco = importlib.import_module("mujoco")
    kind = mujoco.mjtObj
    for index, (sensor, object_type, name) in enumerate(_sensors(mujoco.mjtSensor, kind, points, angles)):
        spec.add_sensor(name=f"s{index}", type=sensor, objtype=object_type, objname=name)


def _sensors(sensor: Any, kind: Any, points: Sequence[str], angles: Sequence[str]) -> Iterator[tuple[Any, Any, str]]:
    """Type, and type and name of the object, of every sensor in the order of `_HAND_SIZES` and `Readings`."""
    place, joint, site, body = sensor.mjSENS_FRAMEPOS, kind.mjOBJ_JOINT, kind.mjOBJ_SITE, kind.mjOBJ_XBODY
    motion = (place, sensor.mjSENS_FRAMEQUAT, sensor.mjSENS_FRAMELINVEL, sensor.mjSENS_FRAMEANGVEL)
    joint_sensors = (sensor.mjSENS_JOINTPOS, sensor.mjSENS_JOINTVEL, sensor.mjSENS_JOINTACTFRC)
    wrench = (sensor.mjSENS_FORCE, sensor.mjSENS_TORQUE)
    for side in SIDES:
        yield from ((type_, joint, f"{side}_{name}") for type_ in joint_sensors for name in JOINTS)
        yield from ((type_, body, f"{side}_{finger}distal") for finger in FINGERS for type_ in motion)
        yield from ((type_, site, f"{side}_{finger}_sensor") for finger in FINGERS for type_ in wrench)
        yield from ((place, site, f"{side}_{finger}_point") for finger in FINGERS)
        yield place, site, f"{side}_palm_point"
        yield place, body, f"{side}_palm"
        yield from ((type_, site, f"{side}_root") for type_ in motion[:2])
    yield from ((type_, body, "object") for type_ in motion)
    yield from ((place, site, point) for point in points)
    yield from ((sensor.mjSENS_JOINTPOS, joint, angle) for angle in angles)


def read(sensordata: np.ndarray, points: Sequence[str], angles: Sequence[str]) -> Readings:
    """Readings of a batch from `sensordata` [B, n] of scenes that `add_sensors` got the same names for."""
    batch = len(sensordata)
    hands = sensordata[:, : 2 * _HAND_SIZE].reshape(batch, 2, _HAND_SIZE)
    fields, start = {}, 0
    for name, size in _HAND_SIZES.items():
        fields[name] = hands[:, :, start : start + size]
        start += size
    rest = sensordata[:, 2 * _HAND_SIZE :]
    object_, rest = _turn_quaternions(rest[:, :_OBJECT_SIZE]), rest[:, _OBJECT_SIZE:]
    tips = (batch, 2, _NUM_TIPS)
    return Readings(
        **{
            **fields,
            "tip_motion": _turn_quaternions(fields["tip_motion"].reshape(*tips, 13)),
            "tip_wrench": fields["tip_wrench"].reshape(*tips, 6),
            "tip_point": fields["tip_point"].reshape(*tips, 3),
            "base_quaternion": from_wxyz(fields["base_quaternion"]),
        },
        object_pose=object_[:, :7],
        object_velocity=object_[:, 7:],
        points={name: rest[:, 3 * i : 3 * i + 3] for i, name in enumerate(points)},
        angles={name: rest[:, 3 * len(points) + i] for i, name in enumerate(angles)},
    )


def _turn_quaternions(motion: np.ndarray) -> np.ndarray:
    """[..,13] with the quaternion in 3..6 turned from w, x, y, z to x, y, z, w."""
    return np.concatenate([motion[..., :3], from_wxyz(motion[..., 3:7]), motion[..., 7:]], axis=-1)
