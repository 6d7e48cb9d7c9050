"""How episodes begin: places, sizes and masses against the numbers that were measured or read of the originals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.bidexhands import TASKS
from tests.support.bidexhands import (
    EVERY,
    FACTS,
    GOALS,
    SIDES,
    THROWS,
    Scene,
    batch_of,
    fixed_axes,
    judge,
    matrix_of,
    turned,
)
from tests.support.bidexhands_layout import JOINTS, base_rotation

pytestmark = pytest.mark.mujoco

PI = np.pi
TASK = pytest.mark.parametrize("task", EVERY)

BASES = {
    "over": (((0, 0, 0.5), (0, 0, 0)), ((0, -1, 0.5), (0, 0, PI))),
    "bottle-cap": (((0, -1.05, 0.5), (0.5, PI, PI)), ((0, -0.25, 0.45), (0, 0.87, 0))),
    "door-open-inward": (((0.55, 0.2, 0.6), (PI, 1.57, 1.57)), ((0.55, -0.2, 0.6), (PI, -1.57, 1.57))),
    "door-open-outward": (((0.55, 0.2, 0.6), (PI, 1.57, 1.57)), ((0.55, -0.2, 0.6), (PI, -1.57, 1.57))),
    "pen": (((0.55, 0.2, 0.8), (PI, 0, 1.57)), ((0.55, -0.2, 0.8), (PI, 0, 1.57))),
    "catch-underarm": (((0, 0, 0.5), (0, 0, 0)), ((0, -1.15, 0.5), (0, 0, PI))),
    "catch-abreast": (((0, -0.55, 0.5), (0, 0.3925, -1.57)), ((0, -1.15, 0.5), (0, -0.3925, -1.57))),
    "scissors": (((0.55, 0.2, 0.8), (PI, 0, 1.57)), ((0.55, -0.2, 0.8), (PI, 0, 1.57))),
}
OBJECTS = {
    "bottle-cap": ((0, -0.6, 0.5), (0, -0.7, 0)),
    "door-open-inward": ((0, 0, 0.7), (0, PI, 0)),
    "door-open-outward": ((0, 0, 0.7), (0, 0, 0)),
    "pen": ((0, 0, 0.612), (1.57, 1.57, 0)),  # the original's z of 0.6 is inside the table
}
EGGS = {"over": (0, -0.39, 0.54), "catch-underarm": (0, -0.39, 0.54), "catch-abreast": (-0.39, -0.55, 0.54)}
POINTING = {
    "over": ((0, -1, 0), (0, 1, 0)),
    "door-open-inward": ((-1, 0, 0), (-1, 0, 0)),
    "door-open-outward": ((-1, 0, 0), (-1, 0, 0)),
    "pen": ((-1, 0, 0), (-1, 0, 0)),
    "scissors": ((-1, 0, 0), (-1, 0, 0)),
}
FACING = {
    "over": ((0, 0, 1), (0, 0, 1)),
    "door-open-inward": ((0, -1, 0), (0, 1, 0)),
    "door-open-outward": ((0, -1, 0), (0, 1, 0)),
    "pen": ((0, 0, -1), (0, 0, -1)),
    "scissors": ((0, 0, -1), (0, 0, -1)),
}


def begun(task: str, seed: int = 0) -> Scene:
    batch = batch_of(task)
    batch.reset([0], [seed])
    return Scene(batch)


@TASK
def test_hands_begin_where_the_originals_do(task: str) -> None:
    scene = begun(task)
    for side, (position, angles) in zip(SIDES, BASES[task], strict=True):
        np.testing.assert_allclose(scene.at(f"{side}_hand mount"), position, rtol=0, atol=1e-12)
        np.testing.assert_allclose(base_rotation(scene, side), fixed_axes(*angles), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", list(POINTING))
def test_fingers_and_palms_point_where_the_originals_do(task: str) -> None:
    scene = begun(task)
    for side, fingers, inner in zip(SIDES, POINTING[task], FACING[task], strict=True):
        forearm = scene.rotation(f"{side}_forearm")
        np.testing.assert_allclose(forearm[:, 2], fingers, rtol=0, atol=2e-3)
        np.testing.assert_allclose(-forearm[:, 1], inner, rtol=0, atol=2e-3)


@TASK
def test_joints_are_at_rest_where_the_originals_are(task: str) -> None:
    expected = dict.fromkeys(JOINTS, 0.0)
    if task == "bottle-cap":
        expected |= {"THJ4": -1.04, "THJ3": 1.2, "THJ0": -1.57}
    scene = begun(task)
    assert not scene.data.qvel.any()
    for name, position in expected.items():
        right, left = (scene.joint(f"{side}_{name}") for side in SIDES)
        assert right == left
        if task in ("over", "catch-underarm"):  # 0.2 (low + (high - low) u), u in [-1, 1]
            low, high = scene.model.joint(f"right_{name}").range
            assert 0.2 * (2 * low - high) <= right <= 0.2 * high
        else:
            assert right == position


@pytest.mark.parametrize("task", ["over", "catch-underarm"])
def test_noise_of_joints_fills_the_originals_range(task: str) -> None:
    scene = begun(task)
    low, high = np.array([scene.model.joint(f"right_{name}").range for name in JOINTS]).T
    drawn = []
    for seed in range(200):
        begun(task, seed)
        drawn.append([scene.joint(f"right_{name}") for name in JOINTS])
    spread = (np.array(drawn) / 0.2 - low) / (high - low)  # u
    assert np.abs(spread).max() <= 1.0 + 1e-9
    np.testing.assert_array_less(spread.min(0), -0.95)
    np.testing.assert_array_less(0.95, spread.max(0))


@pytest.mark.parametrize("task", THROWS)
def test_eggs_begin_with_the_originals_noise(task: str) -> None:
    batch, scene = batch_of(task), begun(task)
    offsets, goals = [], []
    for seed in range(200):
        begun(task, seed)
        offsets.append(scene.at("object") - EGGS[task])
        goals.append(batch.goal([0])[0])
        np.testing.assert_array_equal(goals[-1][:3], GOALS[task])
        for rotation in (scene.rotation("object"), matrix_of(goals[-1][3:])):  # Rx Ry leaves no y in its x axis
            assert abs(rotation[0, 1]) < 1e-12
        np.testing.assert_allclose(scene.rotation("goal"), matrix_of(goals[-1][3:]), atol=1e-12)
    noise = 0.0 if task == "catch-abreast" else 0.01
    assert np.abs(offsets).max() <= noise + 1e-12
    assert np.abs(offsets).max(0).min() >= 0.95 * noise
    angles = [turned(matrix_of(goal[3:])) for goal in goals]
    assert min(angles) < 0.5
    assert max(angles) > 3.0


@TASK
def test_only_throws_begin_by_chance(task: str) -> None:
    assert TASKS[task].random_start == FACTS[task].is_random
    first = begun(task, 0).data.qpos.copy()
    assert np.array_equal(first, begun(task, 1).data.qpos) != FACTS[task].is_random
    np.testing.assert_array_equal(first, begun(task, 0).data.qpos)


@pytest.mark.parametrize("task", list(OBJECTS))
def test_objects_begin_where_the_originals_do(task: str) -> None:
    scene = begun(task)
    position, angles = OBJECTS[task]
    np.testing.assert_allclose(scene.at("object"), position, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scene.rotation("object"), fixed_axes(*angles), rtol=0, atol=1e-12)


def test_finger_tips_of_over_are_5_cm_apart() -> None:
    scene = begun("catch-abreast")  # whose joints begin at zero
    length = np.linalg.norm(scene.tips("right")[1] - scene.at("right_hand mount"))
    assert 1.0 - 2 * length == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("task", "right", "left", "reaches", "reward"),
    [
        ("door-open-inward", (0.049, 0.036, 0.717), (0.046, -0.030, 0.717), (1.05, 1.17), -0.22),
        ("door-open-outward", (0.032, 0.036, 0.683), (0.034, -0.030, 0.683), (1.01, 1.09), -0.11),
    ],
)
def test_door_handles_are_where_they_were_measured(
    task: str, right: Any, left: Any, reaches: tuple[float, float], reward: float
) -> None:
    scene = begun(task)
    handles = scene.handles()
    np.testing.assert_allclose(handles, (right, left), rtol=0, atol=1.5e-3)
    for side, handle, reach in zip(SIDES, handles, reaches, strict=True):
        assert scene.reach(side, handle) == pytest.approx(reach, abs=0.01)
    assert judge(scene, np.zeros(7)).reward == pytest.approx(reward, abs=0.01)


@pytest.mark.parametrize(("task", "opened"), [("door-open-inward", 0.927), ("door-open-outward", 0.767)])
def test_door_handles_part_as_measured(task: str, opened: float) -> None:
    batch, scene = batch_of(task), begun(task)
    for angle, expected in ((0.0, 0.0669), (PI / 2, opened)):
        for side in SIDES:
            scene.data.joint(f"{side}_hinge").qpos[0] = angle
        batch.simulation.settle(0)
        right, left = scene.handles()
        assert abs(right[1] - left[1]) == pytest.approx(expected, abs=2e-3)
        # The inward door's panels come to the hands, at +x; the outward door's leave them.
        if angle:
            assert (right[0] > 0.3) == (task == "door-open-inward")


def test_the_cap_is_beside_the_bottles_axis_and_rises_along_it() -> None:
    batch, scene = batch_of("bottle-cap"), begun("bottle-cap")
    for raised, expected in ((0.0, 0.0103), (0.064, 0.0648)):
        scene.data.joint("cap_slide").qpos[0] = raised
        batch.simulation.settle(0)
        assert np.linalg.norm(scene.at("cap") - scene.at("object")) == pytest.approx(expected, abs=6e-5)
    closed = scene.rotation("object").T @ (scene.at("cap") - scene.at("object"))
    np.testing.assert_allclose(closed, (0.0070, 0.0075, 0.064), atol=1e-9)
    np.testing.assert_allclose(scene.model.joint("cap_slide").range, (0.0, 0.064))


def test_the_pens_cap_is_to_the_right() -> None:
    scene = begun("pen")
    right, left = scene.handles()
    assert np.linalg.norm(right - left) == pytest.approx(0.17, abs=1e-9)
    np.testing.assert_allclose(right - scene.at("object"), (0, 0.1, 0), atol=1e-3)
    np.testing.assert_allclose(scene.model.joint("cap_slide").range, (0.0, 0.492))


def test_scissors_begin_shut() -> None:
    scene = begun("scissors")
    assert scene.joint("hinge") == -0.59
    np.testing.assert_allclose(scene.model.joint("hinge").range, (-0.597, 0.4))
