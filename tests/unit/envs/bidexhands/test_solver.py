"""Forces obey the equations of motion, also where a finger is jammed; damping is implicit and known to contacts.

In these episodes of held full actions (benchmarks/bidexhands/stability.py) a finger is caught between a hand that 833 N
drive on and a door's edge or a table. With sparse matrices MuJoCo 4.0.0 answers with forces that are thousands of
newtons off.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

import numpy as np
import pytest

from envs.bidexhands.scene import FAST, FINE, Physics
from tests.support.bidexhands import EVERY, batch_of, random_actions

pytestmark = pytest.mark.mujoco

mujoco: Any = importlib.import_module("mujoco")
HELD_STEPS = 15


def imbalance(model: Any, data: Any) -> float:
    """The largest entry of M a - (applied forces) - (forces of contacts and limits), N or N m."""
    inertial = np.zeros(model.nv)
    mujoco.mj_mulM(model, data, inertial, data.qacc)
    return float(np.abs(inertial - data.qfrc_smooth - data.qfrc_constraint).max())


def held_actions(first: int, number: int) -> np.ndarray:
    """[number,2,26] of the actions that the benchmark holds, from its step `first` on."""
    drawn = np.random.default_rng(0).choice([-1.0, 1.0], (1000, 2, 26))
    return np.repeat(drawn, HELD_STEPS, axis=0)[first : first + number]


@pytest.mark.parametrize(
    ("task", "first", "number"),
    [("door-open-inward", 1274, 39), ("door-open-inward", 6238, 40), ("scissors", 4110, 31)],
)
def test_a_jammed_finger_is_not_shot_off(task: str, first: int, number: int) -> None:
    batch = batch_of(task)
    batch.reset([0], [0])
    model, data = batch.simulation.model, batch.simulation.world(0)
    twin = mujoco.MjData(model)
    twin.qpos[:] = data.qpos
    for action in held_actions(first, number):
        batch.step([0], action[None])
        twin.ctrl[:], twin.xfrc_applied[:] = data.ctrl, data.xfrc_applied
        for _ in range(batch.physics.substeps):
            mujoco.mj_forward(model, twin)
            assert imbalance(model, twin) < 0.1
            assert np.abs(twin.qvel).max() < 25.0
            mujoco.mj_step(model, twin)


@pytest.mark.parametrize("physics", [FINE, FAST])
@pytest.mark.parametrize("task", EVERY)
def test_joints_are_damped_as_by_mujocos_implicit_integrator(task: str, physics: Physics) -> None:
    """Without contacts and limits, where both are the same step but for the gyroscopic torque on a loose object."""
    batch = batch_of(task, physics=physics)
    batch.reset([0], [0])
    batch.step([0], random_actions(task, 1, 1, seed=0)[0])
    ours, theirs = copy.copy(batch.simulation.model), copy.copy(batch.simulation.model)
    theirs.dof_armature[:] -= physics.timestep * theirs.dof_damping
    assert theirs.dof_armature.min() > -1e-12
    theirs.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    theirs.opt.disableflags = 0
    worlds = []
    for model in (ours, theirs):
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
        worlds.append(copy.copy(batch.simulation.world(0)))
        mujoco.mj_step(model, worlds[-1], 2 * physics.substeps)
    np.testing.assert_allclose(worlds[0].qvel, worlds[1].qvel, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(worlds[0].qpos, worlds[1].qpos, rtol=1e-4, atol=1e-4)
