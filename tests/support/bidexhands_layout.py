"""The state of Bi-DexHands as its originals lay it out, number by number from MuJoCo's own data."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.bidexhands import DOORS, FACTS, FINGERS, SIDES, THROWS, Scene, about, matrix_of

mujoco: Any = importlib.import_module("mujoco")  # its functions have no types

JOINTS = [
    *("WRJ1", "WRJ0", "FFJ3", "FFJ2", "FFJ1", "FFJ0", "MFJ3", "MFJ2", "MFJ1", "MFJ0", "RFJ3", "RFJ2", "RFJ1", "RFJ0"),
    *("LFJ4", "LFJ3", "LFJ2", "LFJ1", "LFJ0", "THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
]
MOTORS = [name for name in JOINTS if name not in ("FFJ0", "MFJ0", "RFJ0", "LFJ0")]


def expected_state(scene: Scene, goal: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of the state in their order, before the clip; `action` [2,A] led here."""
    parts: dict[str, np.ndarray] = {}
    for hand, side in enumerate(SIDES):
        parts |= {f"{side} {name}": part for name, part in _hand(scene, side, action[hand]).items()}
    return parts | _block(scene, goal)


def base_rotation(scene: Scene, side: str) -> np.ndarray:
    """[3,3] how the whole hand is turned: without what the hand's own file turns its mount by."""
    return scene.rotation(f"{side}_hand mount") @ mount_turn().T


def mount_turn() -> np.ndarray:
    """[3,3] of the mount in the hand's file, where angles are about moving axes: x, then y, then z."""
    package = importlib.util.find_spec("gymnasium_robotics")  # to import it would take seconds
    assert package is not None
    assert package.origin is not None
    tree = Path(package.origin).parent / "envs/assets/hand/robot.xml"
    found = re.search(r'name="robot0:hand mount"[^>]*euler="([^"]*)"', tree.read_text())
    assert found is not None
    x, y, z = (float(angle) for angle in found[1].split())
    return about(0, x) @ about(1, y) @ about(2, z)


def euler_of(rotation: np.ndarray) -> np.ndarray:
    """Angles about the fixed axes x, y, z in [0, 2 pi)."""
    about_x = np.arctan2(rotation[2, 1], rotation[2, 2])
    about_y = np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    about_z = np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.array([about_x, about_y, about_z]) % (2 * np.pi)


def motion(scene: Scene, body: str) -> tuple[np.ndarray, np.ndarray]:
    """Linear and angular velocity of a body's origin, in world axes."""
    velocity = np.zeros(6)
    identifier = scene.model.body(body).id
    mujoco.mj_objectVelocity(scene.model, scene.data, mujoco.mjtObj.mjOBJ_XBODY, identifier, velocity, 0)
    return velocity[3:], velocity[:3]


def _hand(scene: Scene, side: str, action: np.ndarray) -> dict[str, np.ndarray]:
    model, data = scene.model, scene.data
    joints = [model.joint(f"{side}_{name}") for name in JOINTS]
    position = np.array([data.qpos[joint.qposadr[0]] for joint in joints])
    low, high = np.array([joint.range for joint in joints]).T
    dof = [joint.dofadr[0] for joint in joints]
    parts = {
        "joint positions": 2 * (position - low) / (high - low) - 1,
        "joint velocities": 0.2 * data.qvel[dof],
        "joint forces": 10 * data.qfrc_actuator[dof],
        "finger tips": np.concatenate([_tip(scene, f"{side}_{finger}distal") for finger in FINGERS]),
        "forces at the tips": np.concatenate([10 * wrench(scene, f"{side}_{finger}distal") for finger in FINGERS]),
    }
    if FACTS[scene.task].action == 26:
        place = scene.at(f"{side}_hand mount") if scene.task in THROWS else scene.palm(side)
        parts |= {"place": place, "base angles": euler_of(base_rotation(scene, side))}
    return parts | {"last action": np.clip(action, -1, 1)}


def _tip(scene: Scene, body: str) -> np.ndarray:
    return np.concatenate([scene.at(body), _xyzw(scene, body), *motion(scene, body)])


def wrench(scene: Scene, body: str) -> np.ndarray:
    """Force and torque between `body` and its parent at its origin and in its frame, from spatial forces.

    Those of the latest forward pass: moved from the tree's centre of mass, where MuJoCo keeps them.
    """
    model, data = scene.model, scene.data
    identifier = model.body(body).id
    spatial = data.cfrc_int[identifier]
    lever = data.xpos[identifier] - data.subtree_com[model.body_rootid[identifier]]
    turn = scene.rotation(body).T
    return np.concatenate([turn @ spatial[3:], turn @ (spatial[:3] - np.cross(lever, spatial[3:]))])


def _xyzw(scene: Scene, body: str) -> np.ndarray:
    w, x, y, z = scene.data.body(body).xquat
    return np.array([x, y, z, w])


def _block(scene: Scene, goal: np.ndarray) -> dict[str, np.ndarray]:
    linear, angular = motion(scene, "object")
    pose = _xyzw(scene, "object")
    block = {"object": scene.at("object"), "object turned": pose, "linear": linear, "angular": 0.2 * angular}
    if scene.task in THROWS:
        return block | {"goal": goal, "difference": _difference(pose, goal[3:])}
    if scene.task == "bottle-cap":
        ends = {"reference": scene.at("object", (0, 0, 0.15)), "cap": scene.at("cap")}
        return block | {"bottle": scene.at("object")} | ends
    right, left = scene.handles()
    return block | ({"left": left, "right": right} if scene.task in DOORS else {"right": right, "left": left})


def _difference(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """quat(object) conj(goal) by Hamilton's table."""
    (a, b, c, d), (e, f, g, h) = (of[[3, 0, 1, 2]], to[[3, 0, 1, 2]] * np.array([1, -1, -1, -1]))
    w, x = a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g
    y, z = a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e
    result = np.array([x, y, z, w])
    np.testing.assert_allclose(matrix_of(result), matrix_of(of) @ matrix_of(to).T, atol=1e-9)
    return result


def assert_state(shown: np.ndarray, parts: dict[str, np.ndarray], tolerance: float, *skipped: Any) -> None:
    """`shown` [S] are the `parts` one after the other, clipped to 5; angles near their jump from 2 pi to 0 excepted."""
    start = 0
    for name, part in parts.items():
        end = start + len(part)
        got, want = shown[start:end], np.clip(part, -5, 5)
        start = end
        if any(word in name for word in skipped):
            continue
        if "angles" in name:
            clear = np.minimum(part, 2 * np.pi - part) > 1e-6
            got, want = got[clear], want[clear]
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=f"{name} at {end - len(part)}:{end}")
    assert start == len(shown)
