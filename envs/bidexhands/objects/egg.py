"""The egg of the throwing tasks: an ellipsoid of 75 g with a mark, so that its rotation can be seen."""

from __future__ import annotations

import importlib
from typing import Any

from envs.bidexhands.objects.material import hollow, solid

RADII = (0.03, 0.03, 0.04)
"""Half axes, metres."""


def add_egg(spec: Any, position: tuple[float, float, float], goal: tuple[float, float, float]) -> None:
    """The body `object`, free, at `position`; and at `goal` its translucent twin, a mocap body that nothing touches."""
    shape = importlib.import_module("mujoco").mjtGeom
    egg = spec.worldbody.add_body(name="object", pos=list(position))
    egg.add_freejoint(name="object_free")
    egg.add_geom(**solid(type=shape.mjGEOM_ELLIPSOID, size=list(RADII), rgba=[0.95, 0.60, 0.25, 1]))
    mark = {"type": shape.mjGEOM_SPHERE, "pos": [0, 0, 0.034], "size": [0.008, 0, 0]}
    egg.add_geom(**hollow(**mark, rgba=[0.2, 0.2, 0.2, 1]) | {"density": 0})
    twin = spec.worldbody.add_body(name="goal", pos=list(goal), mocap=True)
    twin.add_geom(**hollow(type=shape.mjGEOM_ELLIPSOID, size=list(RADII), rgba=[0.3, 0.8, 0.4, 0.35]))
    twin.add_geom(**hollow(**mark, rgba=[0.2, 0.2, 0.2, 0.5]))
