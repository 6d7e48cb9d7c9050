"""A pen on a table whose cap slides off along its axis, which is the root's z: the body above, the cap below."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from envs.bidexhands.objects.material import hollow, solid
from envs.bidexhands.rotation import to_wxyz

CAP_TRAVEL = 0.492
"""How far the cap slides, metres."""
CAP_HANDLE, BODY_HANDLE = -0.10, 0.07
"""Where the right hand (cap) and the left hand (body) are to go along the axis; 0.17 apart when closed."""


def add_pen(spec: Any, position: tuple[float, float, float], quaternion: np.ndarray) -> None:
    """The body `object`, free; the joint `cap_slide` (0 closed); sites `right_handle` (cap) and `left_handle`."""
    mujoco = importlib.import_module("mujoco")
    shape = mujoco.mjtGeom
    blue, dark = [0.20, 0.35, 0.75, 1], [0.15, 0.15, 0.18, 1]
    pen = spec.worldbody.add_body(name="object", pos=list(position), quat=list(to_wxyz(quaternion)))
    pen.add_freejoint(name="object_free")
    pen.add_geom(**solid(type=shape.mjGEOM_CAPSULE, fromto=[0, 0, -0.03, 0, 0, 0.20], size=[0.0104, 0, 0], rgba=blue))
    pen.add_geom(**hollow(type=shape.mjGEOM_CAPSULE, fromto=[0, 0, -0.146, 0, 0, -0.03], size=[0.006, 0, 0], rgba=dark))
    pen.add_site(name="left_handle", pos=[0, 0, BODY_HANDLE], group=5)
    cap = pen.add_body(name="cap")
    cap.add_joint(
        name="cap_slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1], range=[0, CAP_TRAVEL], limited=True,
        damping=0.5,
    )  # fmt: skip
    cap.add_geom(
        **solid(type=shape.mjGEOM_CAPSULE, fromto=[0, 0, -0.1605, 0, 0, -0.0515], size=[0.0115, 0, 0], rgba=dark)
    )
    # The clip stands on the side that is up at the start.
    cap.add_geom(
        **solid(type=shape.mjGEOM_BOX, pos=[-0.0155, 0, -0.106], size=[0.004, 0.006, 0.045], rgba=[0.7, 0.7, 0.72, 1])
    )
    cap.add_site(name="right_handle", pos=[0, 0, CAP_HANDLE], group=5)
