"""Failure and success, each from a state set up by hand just before and just behind its border."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from envs.bidexhands import BiDexHandsBatch
from envs.errors import EnvError
from tests.support.bidexhands import DOORS, EVERY, FACTS, GOALS, LOWEST, SIDES, THROWS, Scene, batch_of

pytestmark = pytest.mark.mujoco

EPSILON = 1e-6


def fresh(task: str) -> tuple[BiDexHandsBatch, Scene]:
    """A new episode."""
    batch = batch_of(task)
    batch.reset([0], [0])
    return batch, Scene(batch)


def judged(batch: BiDexHandsBatch) -> tuple[bool, bool]:
    """Failed, succeeded: of the state as it was written."""
    batch.simulation.settle(0)
    outcome = batch.task.judge(batch.readings([0]), batch.goal([0]))
    return bool(outcome.failed[0]), bool(outcome.success[0])


def ends(batch: BiDexHandsBatch) -> bool:
    """Whether a step with hardly any action terminates, and nothing can follow it."""
    batch.simulation.settle(0)
    action = np.full((1, 2, batch.action_size), 0.01)
    terminated = bool(batch.step([0], action).terminated[0])
    if terminated:
        with pytest.raises(EnvError, match="after the episode's end"):
            batch.step([0], action)
    return terminated


def move_base(scene: Scene, side: str, by: np.ndarray) -> None:
    for axis, distance in zip("xyz", by, strict=True):
        scene.data.joint(f"{side}_base_{axis}").qpos[0] += distance


def border(batch: BiDexHandsBatch, measure: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where in [low, high] the growing `measure`, which writes its argument into the world, reaches `value`."""
    for _ in range(60):
        middle = (low + high) / 2
        batch.simulation.settle(0)
        low, high = (middle, high) if measure(middle) < value else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("task", EVERY)
def test_a_start_is_neither_failure_nor_success_and_goes_on(task: str) -> None:
    batch, _ = fresh(task)
    assert judged(batch) == (False, False)
    assert not ends(batch)


@pytest.mark.parametrize("task", THROWS)
def test_a_throw_fails_where_the_egg_falls(task: str) -> None:
    batch, scene = fresh(task)
    egg = scene.data.joint("object_free").qpos
    for height, failed in ((LOWEST[task] + EPSILON, False), (LOWEST[task] - EPSILON, True)):
        egg[2] = height
        assert judged(batch) == (failed, False)
    assert ends(batch)


@pytest.mark.parametrize("task", THROWS)
def test_a_throw_succeeds_within_3_cm_of_the_goal_whatever_the_rotation(task: str) -> None:
    batch, scene = fresh(task)
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    for distance, success in ((0.03 + EPSILON, False), (0.03 - EPSILON, True)):
        scene.data.joint("object_free").qpos[:3] = np.array(GOALS[task]) + distance * direction
        assert judged(batch) == (False, success)


@pytest.mark.parametrize("side", SIDES)
def test_catch_abreast_fails_where_a_palm_leaves_its_place(side: str) -> None:
    batch, scene = fresh("catch-abreast")
    place = np.array([-0.3, -0.55 if side == "right" else -1.15, 0.5])
    direction = np.array([2.0, 2.0, 1.0]) / 3.0
    for distance, failed in ((0.1 - EPSILON, False), (0.1 + EPSILON, True), (0.11, True)):
        batch.simulation.settle(0)
        move_base(scene, side, place + distance * direction - scene.at(f"{side}_palm"))
        assert judged(batch) == (failed, False)
    assert ends(batch)


def test_a_bottle_fails_where_its_cap_is_too_low() -> None:
    batch, scene = fresh("bottle-cap")
    bottle, reference = scene.data.joint("object_free").qpos, scene.at("object", (0.0, 0.0, 0.15))
    lower = reference[2] - 0.5
    start = bottle[2]
    for by, failed in ((lower - EPSILON, False), (lower + EPSILON, True)):
        bottle[2] = start - by
        assert judged(batch) == (failed, False)
    assert ends(batch)


@pytest.mark.parametrize(("side", "farthest"), [("right", 0.5), ("left", 0.2)])
def test_a_bottle_fails_where_a_palm_is_too_far(side: str, farthest: float) -> None:
    batch, scene = fresh("bottle-cap")
    target = scene.at("object", (0.0, 0.0, 0.15)) if side == "right" else scene.at("object")
    away = scene.palm(side) - target
    assert np.linalg.norm(away) < farthest
    for distance, failed in ((farthest - EPSILON, False), (farthest + EPSILON, True), (farthest + 0.02, True)):
        batch.simulation.settle(0)
        move_base(scene, side, target + distance * away / np.linalg.norm(away) - scene.palm(side))
        assert judged(batch) == (failed, False)
    assert ends(batch)


def test_a_cap_that_is_raised_by_28_mm_is_a_success() -> None:
    batch, scene = fresh("bottle-cap")
    slide = scene.data.joint("cap_slide").qpos
    for raised, success in ((0.0281, False), (0.0283, True)):
        slide[0] = raised
        assert judged(batch) == (False, success)
    slide[0] = 0.05
    batch.simulation.settle(0)
    assert batch.step([0], np.zeros((1, 2, 26))).success[0]


@pytest.mark.parametrize(("task", "farthest"), [*((door, 1.5) for door in DOORS), ("pen", 1.5), ("scissors", 1.75)])
@pytest.mark.parametrize("side", SIDES)
def test_a_hand_that_leaves_its_handle_fails(task: str, farthest: float, side: str) -> None:
    batch, scene = fresh(task)

    def distance(height: float) -> float:
        scene.data.joint(f"{side}_base_z").qpos[0] = height
        batch.simulation.settle(0)
        return scene.reach(side, scene.handles()[SIDES.index(side)])

    height = border(batch, distance, farthest, 0.0, 0.6)
    for beyond, failed in ((-EPSILON, False), (EPSILON, True), (0.02, True)):
        distance(height + beyond)
        assert judged(batch) == (failed, False)
    assert ends(batch)


@pytest.mark.parametrize(("task", "angle"), [("door-open-inward", 1.01), ("door-open-outward", 1.21)])
def test_both_panels_open_at_the_measured_angle_are_a_success(task: str, angle: float) -> None:
    batch, scene = fresh(task)

    def opened(to: float) -> float:
        for side in SIDES:
            scene.data.joint(f"{side}_hinge").qpos[0] = to
        batch.simulation.settle(0)
        right, left = scene.handles()
        return abs(right[1] - left[1])

    at = border(batch, opened, 0.5, 0.0, 1.5)
    assert at == pytest.approx(angle, abs=0.006)
    for beyond, success in ((-EPSILON, False), (EPSILON, True)):
        opened(at + beyond)
        assert judged(batch)[1] == success


@pytest.mark.parametrize("task", DOORS)
@pytest.mark.parametrize("side", SIDES)
def test_one_open_panel_is_none(task: str, side: str) -> None:
    batch, scene = fresh(task)
    scene.data.joint(f"{side}_hinge").qpos[0] = 1.57
    assert not judged(batch)[1]


def test_a_pen_pulled_13_cm_open_is_a_success() -> None:
    batch, scene = fresh("pen")
    for pulled, success in ((0.13 - EPSILON, False), (0.13 + EPSILON, True)):
        scene.data.joint("cap_slide").qpos[0] = pulled
        assert judged(batch) == (False, success)


def test_scissors_are_open_beyond_minus_0_3() -> None:
    batch, scene = fresh("scissors")
    for angle, success in ((-0.3 - EPSILON, False), (-0.3 + EPSILON, True)):
        scene.data.joint("hinge").qpos[0] = angle
        assert judged(batch) == (False, success)


def test_scissors_bent_backwards_by_near_hands_fail() -> None:
    batch, scene = fresh("scissors")
    for angle, failed in ((-0.69 + EPSILON, False), (-0.69 - EPSILON, True)):
        scene.data.joint("hinge").qpos[0] = angle
        for side in SIDES:
            batch.simulation.settle(0)
            move_base(scene, side, scene.handles()[SIDES.index(side)] - scene.tips(side).mean(0))
        assert judged(batch) == (failed, False)


def test_success_is_kept_for_the_episode_and_no_longer() -> None:
    batch, scene = fresh("over")
    egg, still = scene.data.joint("object_free"), np.zeros((1, 2, FACTS["over"].action))
    assert not batch.step([0], still).success[0]
    away = egg.qpos.copy()
    egg.qpos[:3], egg.qvel[:] = GOALS["over"], 0.0
    batch.simulation.settle(0)
    assert batch.step([0], still).success[0]
    egg.qpos[:] = away
    batch.simulation.settle(0)
    result = batch.step([0], still)
    assert result.success[0]
    assert not result.terminated[0]
    batch.reset([0], [1])
    assert not batch.step([0], still).success[0]


@pytest.mark.parametrize("task", EVERY)
def test_time_runs_out_after_the_originals_number_of_steps(task: str) -> None:
    batch, scene = fresh(task)
    start = scene.data.qpos.copy(), scene.data.qvel.copy()
    still = np.zeros((1, 2, FACTS[task].action))
    for step in range(1, FACTS[task].episode_steps + 1):
        scene.data.qpos[:], scene.data.qvel[:] = start  # where nothing fails
        batch.simulation.settle(0)
        result = batch.step([0], still)
        assert not result.terminated[0]
        assert result.truncated[0] == (step == FACTS[task].episode_steps)
    with pytest.raises(EnvError, match="after the episode's end"):
        batch.step([0], still)
