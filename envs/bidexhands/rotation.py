"""Rotations of whole batches as unit quaternions in the order x, y, z, w: [..,4]. Vectors are [..,3], angles radians.

Of NumPy alone; the order is that of Bi-DexHands, MuJoCo's is w, x, y, z.
"""

from __future__ import annotations

import numpy as np

TWO_PI = 2.0 * np.pi


def from_euler(x: float, y: float, z: float) -> np.ndarray:
    """The rotation about the fixed axes x, then y, then z: [4]."""
    turns = [about_axis(axis, np.asarray(angle)) for axis, angle in enumerate((x, y, z))]
    return multiply(turns[2], multiply(turns[1], turns[0]))


def about_axis(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations by `angle` [..] about one coordinate axis (0, 1, 2): [..,4]."""
    quaternion = np.zeros((*np.shape(angle), 4))
    quaternion[..., axis] = np.sin(angle / 2)
    quaternion[..., 3] = np.cos(angle / 2)
    return quaternion


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """First `b`, then `a`: [..,4]."""
    vector = a[..., 3:] * b[..., :3] + b[..., 3:] * a[..., :3] + np.cross(a[..., :3], b[..., :3])
    scalar = a[..., 3] * b[..., 3] - (a[..., :3] * b[..., :3]).sum(-1)
    return np.concatenate([vector, scalar[..., None]], axis=-1)


def conjugate(quaternion: np.ndarray) -> np.ndarray:
    """The opposite rotation: [..,4]."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` turned by `quaternion`: [..,3]."""
    axis = quaternion[..., :3]
    twice = 2.0 * np.cross(axis, vector)
    return vector + quaternion[..., 3:] * twice + np.cross(axis, twice)


def to_euler(quaternion: np.ndarray) -> np.ndarray:
    """Angles about the fixed axes x, y, z, each in [0, 2 pi) as Isaac Gym's helper gives them: [..,3]."""
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    about_x = np.arctan2(2 * (w * x + y * z), w * w - x * x - y * y + z * z)
    about_y = np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0))
    about_z = np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
    angles = np.stack([about_x, about_y, about_z], axis=-1) % TWO_PI
    return np.where(angles == TWO_PI, 0.0, angles)  # what lies just below zero is rounded up to 2 pi


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far `a` is turned from `b`, 2 asin of the difference's vector part: [..] in [0, pi]."""
    difference = multiply(a, conjugate(b))
    return 2.0 * np.arcsin(np.minimum(np.linalg.norm(difference[..., :3], axis=-1), 1.0))


def to_wxyz(quaternion: np.ndarray) -> np.ndarray:
    """MuJoCo's order of x, y, z, w."""
    return np.roll(quaternion, 1, axis=-1)


def from_wxyz(quaternion: np.ndarray) -> np.ndarray:
    """The order x, y, z, w of what MuJoCo gives."""
    return np.roll(quaternion, -1, axis=-1)
