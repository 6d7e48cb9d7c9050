"""A bottle with a cap that slides up and spins freely: as in the original there is no thread between them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from envs.bidexhands.objects.material import hollow, solid
from envs.bidexhands.rotation import to_wxyz

CAP_OFFSET = (0.0070, 0.0075, 0.0)
"""Origin of the cap's body in the bottle's frame when closed: beside the axis, so closed is worth 0.31."""
CAP_RAISE = 0.064
"""How far the cap slides, metres."""
CAP_REFERENCE = (0.0, 0.0, 0.15)
"""Near the cap, but rigid with the bottle: where the right hand is to go."""
FRICTION = 2.0
"""The original's 100 against a hand's 1 holds whatever is pressed; 2 does nearly that, and 50 makes contacts stiff."""

SOFT = {"solimp": (0.9, 0.95, 0.001, 0.5, 2.0), "margin": 0.0}
"""MuJoCo's own contacts: harder ones push the bottle, which begins 7 mm inside the left hand, out before it is held."""


def add_bottle(spec: Any, position: tuple[float, float, float], quaternion: np.ndarray) -> None:
    """The body `object`, free; sites `bottle`, `cap_reference` and `cap`; the joints `cap_slide` and `cap_spin`."""
    mujoco = importlib.import_module("mujoco")
    shape, joint = mujoco.mjtGeom, mujoco.mjtJoint
    glass, red = [0.35, 0.60, 0.75, 1], [0.80, 0.20, 0.20, 1]
    bottle = spec.worldbody.add_body(name="object", pos=list(position), quat=list(to_wxyz(quaternion)))
    bottle.add_freejoint(name="object_free")
    bottle.add_geom(
        **solid(FRICTION, **SOFT, type=shape.mjGEOM_CYLINDER, pos=[0, 0, -0.01], size=[0.0385, 0.116, 0], rgba=glass)
    )
    bottle.add_geom(
        **solid(FRICTION, **SOFT, type=shape.mjGEOM_ELLIPSOID, pos=[0, 0, 0.106], size=[0.034, 0.034, 0.03], rgba=glass)
    )
    bottle.add_geom(**hollow(type=shape.mjGEOM_CYLINDER, pos=[0, 0, 0.1415], size=[0.0111, 0.0075, 0], rgba=glass))
    bottle.add_site(name="bottle", group=5)
    bottle.add_site(name="cap_reference", pos=list(CAP_REFERENCE), group=5)
    cap = bottle.add_body(name="cap", pos=list(CAP_OFFSET))
    axis = [-CAP_OFFSET[0], -CAP_OFFSET[1], 0.0]  # the bottle's axis in the cap's frame
    cap.add_joint(
        name="cap_slide", type=joint.mjJNT_SLIDE, axis=[0, 0, 1], range=[0, CAP_RAISE], limited=True, damping=1.0,
        armature=0.002,
    )  # fmt: skip
    cap.add_joint(name="cap_spin", type=joint.mjJNT_HINGE, axis=[0, 0, 1], pos=axis, damping=0.002, armature=1e-5)
    cap.add_geom(
        **solid(
            FRICTION,
            **SOFT,
            type=shape.mjGEOM_CYLINDER,
            pos=[axis[0], axis[1], 0.1444],
            size=[0.0129, 0.0052, 0],
            rgba=red,
        )
    )
    cap.add_site(name="cap", group=5)
