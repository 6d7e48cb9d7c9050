"""Scissors that lie flat on a table: two blades with rings, one hinge between them, drawn in the links' own frame.

There x runs along the scissors towards the rings, y is up and z across; angles are measured from x towards -z.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from envs.bidexhands.objects.material import LINK_QUATERNION, solid
from envs.bidexhands.rotation import to_wxyz

CLOSED, OPEN = -0.597, 0.4
"""Limits of the hinge, radians; at `START` the task begins."""
START = -0.59
RIGHT_HANDLE = (0.2, 0.0, -0.1)
"""In the moving link's frame."""
LEFT_HANDLE = (0.15, 0.0, 0.1)
"""In the base link's frame."""
_HALF_THICKNESS = 0.003
_BASE_BLADE = -0.36
"""Angle of the base's blade, behind the hinge; the other one lies on it when closed."""


def add_scissors(spec: Any, position: tuple[float, float, float], quaternion: np.ndarray) -> None:
    """The body `object`, free; the joint `hinge`; sites `right_handle` and `left_handle`."""
    mujoco = importlib.import_module("mujoco")
    scissors = spec.worldbody.add_body(name="object", pos=list(position), quat=list(to_wxyz(quaternion)))
    scissors.add_freejoint(name="object_free")
    base = scissors.add_frame(quat=list(LINK_QUATERNION))
    fixed = scissors.add_body(name="fixed_blade")
    fixed.set_frame(base)
    _add_half(fixed, _BASE_BLADE, LEFT_HANDLE, -_HALF_THICKNESS, [0.75, 0.30, 0.25, 1], mujoco)
    fixed.add_site(name="left_handle", pos=list(LEFT_HANDLE), group=5)
    moving = scissors.add_body(name="moving_blade")
    moving.set_frame(base)
    moving.add_joint(
        name="hinge",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 1, 0],
        range=[CLOSED, OPEN],
        limited=True,
        damping=0.01,
        armature=1e-4,
    )
    _add_half(moving, _BASE_BLADE - CLOSED, RIGHT_HANDLE, _HALF_THICKNESS, [0.30, 0.45, 0.70, 1], mujoco)
    moving.add_site(name="right_handle", pos=list(RIGHT_HANDLE), group=5)
    spec.add_exclude(bodyname1="fixed_blade", bodyname2="moving_blade")


def _add_half(
    body: Any, blade: float, handle: tuple[float, float, float], height: float, rgba: Any, mujoco: Any
) -> None:
    """A blade behind the hinge, a shank in front of it, and a ring of four bars around `handle`."""
    shape = mujoco.mjtGeom
    away = -np.array([np.cos(blade), 0.0, -np.sin(blade)])
    tip = 0.30 * away
    body.add_geom(
        **solid(
            type=shape.mjGEOM_BOX,
            pos=list(tip / 2 + [0, height, 0]),
            quat=[np.cos(blade / 2), 0, np.sin(blade / 2), 0],
            size=[0.15, _HALF_THICKNESS, 0.010],
            rgba=[0.8, 0.8, 0.82, 1],
        )
    )
    x, _, z = handle
    corners = [(x - 0.035, z - 0.025), (x + 0.035, z - 0.025), (x + 0.035, z + 0.025), (x - 0.035, z + 0.025)]
    shank = ((0.0, 0.0), (x - 0.035, z))
    bars = [shank, *zip(corners, corners[1:] + corners[:1], strict=True)]
    for (x0, z0), (x1, z1) in bars:
        body.add_geom(**solid(type=shape.mjGEOM_CAPSULE, fromto=[x0, 0, z0, x1, 0, z1], size=[0.006, 0, 0], rgba=rgba))
