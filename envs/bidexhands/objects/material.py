"""What every handled object is made of, and the frame that articulated ones are drawn in."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.scene import IMPEDANCE, MARGIN, WORLD_BITS

DENSITY = 500.0
"""Of every object, kg/m^3."""

LINK_QUATERNION = rotation.to_wxyz(rotation.from_euler(np.pi / 2, 0.0, -np.pi / 2))
"""How the links of the articulated originals are turned in their root (w first): x to -y, y to +z, z to -x."""


def solid(friction: float = 1.0, **shape: Any) -> dict[str, Any]:
    """Arguments of `add_geom` for a shape that can be touched; its friction counts, whatever touches it."""
    return {
        "density": DENSITY,
        "contype": WORLD_BITS,
        "conaffinity": WORLD_BITS,
        "condim": 4,
        "priority": 1,
        "friction": [friction, 0.005, 0.0001],
        "solimp": IMPEDANCE,
        "margin": MARGIN,
        **shape,
    }


def hollow(**shape: Any) -> dict[str, Any]:
    """Arguments of `add_geom` for a shape that is seen and weighs, but cannot be touched."""
    return {"density": DENSITY, "contype": 0, "conaffinity": 0, **shape}
