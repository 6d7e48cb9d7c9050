"""A table: one fixed box."""

from __future__ import annotations

import importlib
from typing import Any

from envs.bidexhands.objects.material import solid


def add_table(spec: Any, centre: tuple[float, float, float], size: tuple[float, float, float]) -> None:
    """A box of `size` around `centre`, metres."""
    box = importlib.import_module("mujoco").mjtGeom.mjGEOM_BOX
    half = [length / 2 for length in size]
    spec.worldbody.add_geom(**solid(name="table", type=box, pos=list(centre), size=half, rgba=[0.52, 0.50, 0.47, 1]))
