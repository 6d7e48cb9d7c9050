"""Rewards, ends and successes equal what MuJoCo's own positions give by the originals' formulas."""

from __future__ import annotations

import numpy as np
import pytest

from envs.bidexhands import BiDexHandsBatch
from tests.support.bidexhands import EVERY, SIDES, THROWS, Scene, batch_of, judge, random_actions

pytestmark = pytest.mark.mujoco

ROWS = 7
TASK = pytest.mark.parametrize("task", EVERY)


@TASK
@pytest.mark.parametrize("num_steps", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_what_a_step_is_worth(task: str, num_steps: int) -> None:
    batch = batch_of(task, ROWS, physics="fast")
    scenes = [Scene(batch, row) for row in range(ROWS)]
    rows = list(range(ROWS))
    batch.reset(rows, rows)
    for step, action in enumerate(random_actions(task, num_steps, ROWS, seed=1, scale=0.4)):
        result = batch.step(rows, action)
        expected = [judge(scene, goal) for scene, goal in zip(scenes, batch.goal(rows), strict=True)]
        np.testing.assert_allclose(result.reward, [one.reward for one in expected], rtol=0, atol=1e-5)
        assert result.terminated.tolist() == [one.failed for one in expected]
        over = [row for row in rows if result.terminated[row] or result.truncated[row]]
        if over:
            batch.reset(over, [1000 * step + row for row in over])


@TASK
@pytest.mark.parametrize("num_states", [50, pytest.param(300, marks=pytest.mark.slow)])
def test_what_hands_at_their_aims_are_worth(task: str, num_states: int) -> None:
    batch = batch_of(task, ROWS, physics="fast")
    scene, rng = Scene(batch), np.random.default_rng(2)
    judged = []
    for seed in range(num_states):
        batch.reset([0], [seed])
        if task in THROWS:
            _throw_near(scene, batch.goal([0])[0], rng)
        else:
            _reach(batch, scene, rng)
        batch.simulation.settle(0)
        goal = batch.goal([0])
        outcome = batch.task.judge(batch.readings([0]), goal)
        expected = judge(scene, goal[0])
        np.testing.assert_allclose(outcome.reward, expected.reward, rtol=0, atol=1e-5)
        assert (bool(outcome.failed[0]), bool(outcome.success[0])) == (expected.failed, expected.success)
        judged.append((outcome.success[0], outcome.terms.get(_BONUS.get(task, ""), np.zeros(1))[0] != 0.0))
    # What depends on a condition was seen on both of its sides.
    assert {success for success, _ in judged} == {True, False}
    if task in _BONUS:
        assert {has_bonus for _, has_bonus in judged} == {True, False}


_BONUS = {
    "bottle-cap": "raising",
    "door-open-inward": "opening",
    "door-open-outward": "opening",
    "pen": "opening",
    "scissors": "opening",
}
_PINCH = {"FFJ2": 0.5, "MFJ2": 0.5, "RFJ2": 0.5, "LFJ2": 0.5, "THJ4": 1.0, "THJ3": 1.2, "THJ0": -0.7}
_ARTICULATION = {
    "bottle-cap": {"cap_slide": (0.0, 0.064)},
    "door-open-inward": {"right_hinge": (0.0, 1.57), "left_hinge": (0.0, 1.57)},
    "door-open-outward": {"right_hinge": (0.0, 1.57), "left_hinge": (0.0, 1.57)},
    "pen": {"cap_slide": (0.0, 0.492)},
    "scissors": {"hinge": (-0.72, 0.4)},
}


def _throw_near(scene: Scene, goal: np.ndarray, rng: np.random.Generator) -> None:
    egg = scene.data.joint("object_free").qpos
    egg[:3] = goal[:3] + rng.uniform(-0.04, 0.04, 3)
    if rng.random() < 0.2:
        egg[2] = rng.uniform(0.05, 0.25)
    egg[3:] = _unit(rng)


def _reach(batch: BiDexHandsBatch, scene: Scene, rng: np.random.Generator) -> None:
    """Open the object by chance, then put each hand near its aim."""
    for joint, (low, high) in _ARTICULATION[scene.task].items():
        scene.data.joint(joint).qpos[0] = rng.uniform(low, high)
    if scene.task == "bottle-cap":
        scene.data.joint("object_free").qpos[:3] += rng.uniform(-0.05, 0.05, 3)
        for joint, angle in _PINCH.items():  # else no finger tips are near enough to each other
            scene.data.joint(f"right_{joint}").qpos[0] = angle
    for _ in range(2):  # the second time with the aims where they are by then
        batch.simulation.settle(0)
        aims = _aims(scene)
        for side, aim in zip(SIDES, aims, strict=True):
            here = scene.palm(side) if scene.task == "bottle-cap" and side == "left" else scene.tips(side).mean(0)
            for axis, by in zip("xyz", aim - here, strict=True):
                scene.data.joint(f"{side}_base_{axis}").qpos[0] += by
    spread = rng.choice([0.0, 0.03, 0.3])
    for side in SIDES:
        for axis in "xyz":
            scene.data.joint(f"{side}_base_{axis}").qpos[0] += rng.normal() * spread


def _aims(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    if scene.task == "bottle-cap":
        return scene.at("object", (0.0, 0.0, 0.15)), scene.at("object")
    return scene.handles()


def _unit(rng: np.random.Generator) -> np.ndarray:
    quaternion = rng.normal(size=4)
    return quaternion / np.linalg.norm(quaternion)
