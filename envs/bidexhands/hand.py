"""The Shadow Hand of gymnasium-robotics, as an `MjSpec` that can be attached to a scene; and what is known of it.

Both hands of Bi-DexHands are this one right hand: there is no mirrored one. Its files are the originals' but for forty
tendons that cannot bind, which are dropped here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from envs.errors import EnvError

FINGERS = ("ff", "mf", "rf", "lf", "th")
"""First, middle, ring and little finger, thumb: the order of fingertips in observations."""

JOINTS = (
    *("WRJ1", "WRJ0"),
    *("FFJ3", "FFJ2", "FFJ1", "FFJ0"),
    *("MFJ3", "MFJ2", "MFJ1", "MFJ0"),
    *("RFJ3", "RFJ2", "RFJ1", "RFJ0"),
    *("LFJ4", "LFJ3", "LFJ2", "LFJ1", "LFJ0"),
    *("THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
)
"""The 24 joints in the order of observations."""

COUPLED = ("FFJ0", "MFJ0", "RFJ0", "LFJ0")
"""Joints that follow their neighbour by a tendon."""

ACTUATED = tuple(index for index, name in enumerate(JOINTS) if name not in COUPLED)
"""The 20 joints with a motor, in the order of actions."""

LOWER = np.array(
    [-0.489, -0.698]
    + 3 * [-0.349, 0.0, 0.0, 0.0]
    + [0.0, -0.349, 0.0, 0.0, 0.0]
    + [-1.047, 0.0, -0.209, -0.524, -1.571]
)  # fmt: skip
UPPER = np.array(
    [0.14, 0.489]
    + 3 * [0.349, 1.571, 1.571, 1.571]
    + [0.785, 0.349, 1.571, 1.571, 1.571]
    + [1.047, 1.222, 0.209, 0.524, 0.0]
)  # fmt: skip
"""Limits of the joints, radians."""

MASS = 5.011
"""Of the whole hand, kg."""
MEAN_INERTIA = 0.0212
"""Of the whole hand about its centre of mass, kg m^2."""

PALM_POINT = (0.0, -0.02, 0.08)
"""Where distances to the palm are measured from, in the palm's frame: its inner side is -y, the fingers +z."""
TIP_POINT = (0.0, 0.0, 0.02)
"""Where distances to a fingertip are measured from, in the frame of the finger's last link."""


def hand_spec(contype: int, conaffinity: int, *, mujoco: Any = None) -> Any:
    """A fresh `mujoco.MjSpec` of one hand without gravity, its mount at the origin.

    Args:
        contype: MuJoCo's contact bits of the hand's collision shapes; within a hand only the listed pairs collide.
        conaffinity: as `contype`.
        mujoco: the imported package, for callers that have it.

    Raises:
        EnvError: when the installed gymnasium-robotics lacks a file of the hand.
    """
    mujoco = mujoco or importlib.import_module("mujoco")
    spec = mujoco.MjSpec.from_string(_hand_xml())
    for body in spec.bodies[1:]:  # the first is the world
        body.gravcomp = 1.0
    for geom in spec.geoms:  # all others are drawn only, though two markers inside the thumb are no such in the file
        is_touched = geom.name.startswith("C_")
        geom.contype, geom.conaffinity = (contype, conaffinity) if is_touched else (0, 0)
    _add_reference_sites(spec)
    return spec


def _add_reference_sites(spec: Any) -> None:
    """Sites at the points that rewards and sensors refer to; invisible (group 5)."""
    spec.body("palm").add_site(name="palm_point", pos=list(PALM_POINT), group=5)
    for finger in FINGERS:
        distal = spec.body(f"{finger}distal")
        distal.add_site(name=f"{finger}_sensor", group=5)
        distal.add_site(name=f"{finger}_point", pos=list(TIP_POINT), group=5)


@functools.cache
def _hand_xml() -> str:
    """One MJCF document of the hand from the three files of gymnasium-robotics."""
    assets = _assets()
    shared, meshes, tree = (_inner(assets / "hand" / name) for name in ("shared.xml", "shared_asset.xml", "robot.xml"))
    # Sizes, visual settings and sensors of the package are of no use to a scene with two hands and other objects.
    for element in ("size", "visual", "sensor"):
        shared = re.sub(rf"<{element}\b.*?(/>|</{element}>)", "", shared, count=1, flags=re.DOTALL)
    coupling = re.findall(r'<fixed name="T_\wFJ1c".*?</fixed>', shared, flags=re.DOTALL)
    shared = re.sub(r"<tendon>.*?</tendon>", f"<tendon>{''.join(coupling)}</tendon>", shared, flags=re.DOTALL)
    meshes = re.sub(r"<texture type=\"skybox\".*?</texture>", "", meshes, flags=re.DOTALL)
    tree, moved = re.subn(r'(<body name="hand mount") pos="[^"]*"', r'\1 pos="0 0 0"', tree)
    if len(coupling) != len(COUPLED) or moved != 1:
        raise EnvError(
            f"the hand in {assets} is not the one known here: {len(coupling)} coupling tendons and {moved} mounts, "
            "expected 4 and 1; install gymnasium-robotics 1.4.2"
        )
    return (
        f'<mujoco model="hand"><compiler angle="radian" meshdir={quoteattr(str(assets / "stls" / "hand"))}/>'
        f"{shared}<asset>{meshes}</asset><worldbody>{tree}</worldbody></mujoco>"
    )


def _inner(file: Path) -> str:
    """What `file` holds inside its <mujoco> element, without the prefix of names."""
    text = re.sub(r"<!--.*?-->", "", file.read_text(), flags=re.DOTALL).replace("robot0:", "")
    found = re.search(r"<mujoco[^>]*>(.*)</mujoco>", text, flags=re.DOTALL)
    if found is None:
        raise EnvError(f"{file} holds no <mujoco> element: install gymnasium-robotics 1.4.2")
    return found[1]


def _assets() -> Path:
    """The folder of the package's assets, found without importing the package (which would load its environments)."""
    found = importlib.util.find_spec("gymnasium_robotics")
    if found is None or found.origin is None:
        raise EnvError(
            "gymnasium-robotics is not installed, whose Shadow Hand is needed: pip install gymnasium-robotics"
        )
    assets = Path(found.origin).parent / "envs" / "assets"
    needed = [assets / "hand" / name for name in ("shared.xml", "shared_asset.xml", "robot.xml")]
    missing = [str(path) for path in (*needed, assets / "stls" / "hand") if not path.exists()]
    if missing:
        raise EnvError(f"gymnasium-robotics lacks {', '.join(missing)}: install gymnasium-robotics 1.4.2")
    return assets
