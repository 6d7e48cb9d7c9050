"""A double door in a frame, each panel with a bar to grasp on both faces. The same door is pushed or pulled open.

Links are drawn in their own frame: x along the door, y up, z to the side that the panels swing to.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from envs.bidexhands.objects.material import LINK_QUATERNION, solid
from envs.bidexhands.rotation import to_wxyz

HINGES = {"right": (-0.4265, 0.483, 0.0085), "left": (0.4204, 0.483, 0.006)}
"""Origins of the panels, which lie on their hinges, in the door's link frame."""
HANDLE_REACH = 0.39
"""From the hinge to the point where a hand is to go, along the closed panel."""
HANDLE_HEIGHT = -0.5
"""Of that point, below the panel's origin."""
FRICTION = 0.55
"""The mean of the original's 0.1 and a hand's 1, as PhysX combines them."""
OPEN = np.pi / 2


def add_door(spec: Any, position: tuple[float, float, float], quaternion: np.ndarray, handle_depth: float) -> None:
    """The fixed body `object`; joints `right_hinge`, `left_hinge` (0 closed) and sites `right_handle`, `left_handle`.

    Args:
        spec: the scene.
        position: of the root.
        quaternion: of the root.
        handle_depth: of the handle points, along the link's z: on which face of the panel they are.
    """
    mujoco = importlib.import_module("mujoco")
    door = spec.worldbody.add_body(name="object", pos=list(position), quat=list(to_wxyz(quaternion)))
    frame = door.add_body(name="door_frame", quat=list(LINK_QUATERNION))
    for height in (-0.445, 0.481):
        frame.add_geom(
            **solid(
                FRICTION,
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[-0.003, height, 0.007],
                size=[0.881, 0.0022, 0.024],
                rgba=[0.35, 0.25, 0.18, 1],
            )
        )
    for side, origin in HINGES.items():
        _add_panel(frame, side, origin, handle_depth, mujoco)
        spec.add_exclude(bodyname1="door_frame", bodyname2=f"{side}_panel")


def _add_panel(frame: Any, side: str, origin: tuple[float, float, float], handle_depth: float, mujoco: Any) -> None:
    shape = mujoco.mjtGeom
    inward = 1.0 if side == "right" else -1.0  # along x, from the hinge to the middle of the door
    panel = frame.add_body(name=f"{side}_panel", pos=list(origin))
    panel.add_joint(
        name=f"{side}_hinge",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, -inward, 0],
        range=[0, OPEN],
        limited=True,
        damping=1.0,
        armature=0.01,
    )
    panel.add_geom(
        **solid(
            FRICTION,
            type=shape.mjGEOM_BOX,
            pos=[0.214 * inward, -0.465, 0],
            size=[0.208, 0.46, 0.0088],  # 0.218 after the bounding box, but then both panels would overlap
            rgba=[0.62, 0.44, 0.28, 1],
        )
    )
    bar = {"type": shape.mjGEOM_CAPSULE, "rgba": [0.75, 0.75, 0.78, 1]}
    for face, reach in ((1.0, 0.058), (-1.0, 0.064)):
        x, z = 0.375 * inward, face * reach
        panel.add_geom(**solid(FRICTION, **bar, fromto=[x, -0.41, z, x, -0.64, z], size=[0.010, 0, 0]))
        for y in (-0.41, -0.64):
            panel.add_geom(**solid(FRICTION, **bar, fromto=[x, y, face * 0.009, x, y, z], size=[0.008, 0, 0]))
    panel.add_site(name=f"{side}_handle", pos=[HANDLE_REACH * inward, HANDLE_HEIGHT, handle_depth], group=5)
