"""What an action does: wrenches on the forearms in world axes, targets of motors, the clip, and the speeds reached."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.bidexhands import DOORS, EVERY, FACTS, SIDES, Scene, batch_of
from tests.support.bidexhands_layout import MOTORS, motion

pytestmark = pytest.mark.mujoco

FULL = {
    "bottle-cap": (166.7, 1.667, 0.055),
    "door-open-inward": (833.3, 8.333, 0.277),
    "door-open-outward": (833.3, 8.333, 0.277),
    "pen": (833.3, 1.667, 0.277),
    "scissors": (833.3, 1.667, 0.277),
    "catch-underarm": (83.3, 8.333, 0.028),
    "catch-abreast": (833.3, 16.67, 0.277),
}
"""At an action of 1: newtons, newton metres, and the speed in m/s that the force ends at."""
FLOATING = pytest.mark.parametrize("task", list(FULL))


def begun(task: str) -> Scene:
    batch = batch_of(task)
    batch.reset([0], [0])
    return Scene(batch)


def still(scene: Scene) -> np.ndarray:
    """[2,A] the action that leaves base and motors where they are."""
    action = np.zeros((2, FACTS[scene.task].action))
    for hand, side in enumerate(SIDES):
        for index, name in enumerate(MOTORS):
            low, high = scene.model.joint(f"{side}_{name}").range
            action[hand, index - 20] = 2 * (scene.joint(f"{side}_{name}") - low) / (high - low) - 1
    return np.clip(action, -1, 1)


@FLOATING
def test_forces_and_torques_act_on_the_forearms_alone(task: str) -> None:
    force, torque, _ = FULL[task]
    scene = begun(task)
    action = np.random.default_rng(0).uniform(-1, 1, (2, 26))
    batch_of(task).step([0], action[None])
    expected = np.zeros_like(scene.data.xfrc_applied)
    for hand, side in enumerate(SIDES):
        expected[scene.model.body(f"{side}_forearm").id] = action[hand, :6] * np.repeat([force, torque], 3)
    np.testing.assert_allclose(scene.data.xfrc_applied, expected, rtol=5e-4)


@pytest.mark.parametrize("task", EVERY)
def test_motors_get_targets_within_the_limits_of_their_joints(task: str) -> None:
    scene = begun(task)
    action = np.random.default_rng(0).uniform(-1, 1, (2, FACTS[task].action))
    action[0, -1], action[1, -2] = 1.0, -1.0
    batch_of(task).step([0], action[None])
    for hand, side in enumerate(SIDES):
        for index, name in enumerate(MOTORS):
            low, high = scene.model.joint(f"{side}_{name}").range
            target = low + (action[hand, index - 20] + 1) / 2 * (high - low)
            motor = scene.model.actuator(f"{side}_A_{name}").id
            assert scene.data.ctrl[motor] == pytest.approx(target, abs=1e-12)
            assert scene.model.joint(int(scene.model.actuator_trnid[motor, 0])).name == f"{side}_{name}"


@pytest.mark.parametrize("task", EVERY)
def test_actions_are_clipped(task: str) -> None:
    batch = batch_of(task)
    action = np.random.default_rng(1).uniform(-3, 3, (1, 2, FACTS[task].action))
    batch.reset([0], [0])
    far = batch.step([0], action)
    batch.reset([0], [0])
    near = batch.step([0], np.clip(action, -1, 1))
    np.testing.assert_array_equal(far.state, near.state)
    hand = 187 if FACTS[task].action == 20 else 199
    np.testing.assert_array_equal(
        far.state[0, hand - FACTS[task].action : hand], np.clip(action[0, 0], -1, 1).astype(np.float32)
    )


@FLOATING
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_full_force_moves_both_hands_along_the_world_axis_at_the_terminal_speed(task: str, axis: int) -> None:
    """Away from whatever is there: up, and out along x and y."""
    _, _, speed = FULL[task]
    scene = begun(task)
    outward = {"right": 1.0, "left": -1.0} if axis == 1 and task != "bottle-cap" else {"right": 1.0, "left": 1.0}
    if task == "bottle-cap" and axis == 1:
        outward = {"right": -1.0, "left": 1.0}
    action = still(scene)
    for hand, side in enumerate(SIDES):
        action[hand, axis] = outward[side]
    for _ in range(3):
        batch_of(task).step([0], action[None])
    for side in SIDES:
        velocity = np.array([scene.data.joint(f"{side}_base_{name}").qvel[0] for name in "xyz"])
        expected = np.zeros(3)
        expected[axis] = speed * outward[side]
        np.testing.assert_allclose(velocity, expected, rtol=0, atol=0.03 * speed)


@FLOATING
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_torque_turns_both_hands_about_the_world_axis(task: str, axis: int) -> None:
    _, torque, _ = FULL[task]
    scene = begun(task)
    action = still(scene)
    action[:, 3 + axis] = 1.0
    if task == "bottle-cap":  # which lies on the left hand
        scene.data.joint("object_free").qpos[2] += 1.0
        batch_of(task).simulation.settle(0)
    batch_of(task).step([0], action[None])
    for side in SIDES:
        _, angular = motion(scene, f"{side}_forearm")
        assert angular[axis] == pytest.approx(torque / (600 * 0.0212), rel=0.1)
        assert np.abs(np.delete(angular, axis)).max() < 0.1 * angular[axis]


def test_hands_of_over_stay_in_place() -> None:
    scene = begun("over")
    before = scene.at("right_hand mount").copy(), scene.rotation("left_hand mount")
    for action in np.random.default_rng(0).choice([-1.0, 1.0], (5, 1, 2, 20)):
        batch_of("over").step([0], action)
    np.testing.assert_array_equal(before[0], scene.at("right_hand mount"))
    np.testing.assert_array_equal(before[1], scene.rotation("left_hand mount"))


@pytest.mark.parametrize("task", DOORS)
def test_full_force_opens_the_door_that_can_be_pushed_and_only_that(task: str) -> None:
    scene = begun(task)
    action = still(scene)
    action[:, 0] = -1.0
    for _ in range(120):
        if batch_of(task).step([0], action[None]).terminated[0]:
            break
    opened = [scene.joint(f"{side}_hinge") for side in SIDES]
    if task == "door-open-outward":
        assert min(opened) > 1.2
    else:
        assert max(opened) < 0.02
