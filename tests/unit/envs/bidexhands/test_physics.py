"""The simulation is MuJoCo's own, to the bit; rows, threads, snapshots and seeds change nothing in it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from envs.bidexhands import BiDexHandsBatch
from envs.bidexhands.batch import BatchStep
from tests.support.bidexhands import EVERY, FACTS, batch_of, random_actions

pytestmark = pytest.mark.mujoco

mujoco: Any = importlib.import_module("mujoco")
TASK = pytest.mark.parametrize("task", EVERY)
ROWS = 5


def assert_same_step(one: BatchStep, other: BatchStep) -> None:
    for a, b in zip(one[:-1], other[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.terms.keys() == other.terms.keys()
    for name in one.terms:
        np.testing.assert_array_equal(one.terms[name], other.terms[name])


@TASK
@pytest.mark.parametrize("physics", ["fine", "fast"])
def test_a_control_step_is_so_many_steps_of_mujoco(task: str, physics: Any) -> None:
    batch = batch_of(task, physics=physics)
    batch.reset([0], [3])
    model, data = batch.simulation.model, batch.simulation.world(0)
    twin = mujoco.MjData(model)
    twin.qpos[:] = data.qpos
    twin.mocap_pos[:], twin.mocap_quat[:] = data.mocap_pos, data.mocap_quat
    substeps = {"fine": 8, "fast": 4}[physics]
    assert model.opt.timestep == pytest.approx(1 / 60 / substeps, rel=1e-12)
    for action in random_actions(task, 12, 1, seed=0):
        batch.step([0], action)
        twin.ctrl[:], twin.xfrc_applied[:] = data.ctrl, data.xfrc_applied
        mujoco.mj_step(model, twin, nstep=substeps)
        for name in ("qpos", "qvel", "act", "qacc", "qacc_warmstart", "time"):
            np.testing.assert_array_equal(getattr(data, name), getattr(twin, name), err_msg=name)


@TASK
def test_sensors_show_the_end_of_the_step(task: str) -> None:
    batch = batch_of(task)
    batch.reset([0], [3])
    model = batch.simulation.model
    late = np.concatenate(
        [
            np.arange(model.sensor_adr[i], model.sensor_adr[i] + model.sensor_dim[i])
            for i in np.flatnonzero(model.sensor_needstage < int(mujoco.mjtStage.mjSTAGE_ACC))
        ]
    )
    assert 0 < len(late) < model.nsensordata
    twin = mujoco.MjData(model)
    for action in random_actions(task, 6, 1, seed=0):
        batch.step([0], action)
        shown = batch.simulation.sensors([0])[0]
        mujoco.mj_copyData(twin, model, batch.simulation.world(0))
        mujoco.mj_forward(model, twin)
        np.testing.assert_array_equal(shown[late], twin.sensordata[late])


def played(batch: BiDexHandsBatch, rows: list[int], seeds: list[int], actions: np.ndarray) -> list[BatchStep]:
    """Each step's result, rows in the order of `seeds`; a row whose episode ends is begun again."""
    batch.reset(rows, seeds)
    results = []
    for step, action in enumerate(actions):
        results.append(batch.step(rows, action))
        ended = np.flatnonzero(results[-1].terminated | results[-1].truncated)
        batch.reset([rows[i] for i in ended], [100 * step + seeds[i] for i in ended])
    return results


@pytest.mark.parametrize(
    ("task", "num_threads", "num_steps"),
    [("over", 1, 5), ("over", 2, 5), ("over", 3, 5), ("door-open-inward", 2, 5), ("bottle-cap", 3, 32)],
)
def test_rows_do_not_know_of_each_other(task: str, num_threads: int, num_steps: int) -> None:
    """In 32 steps most bottles are lost, so that rows begin anew at different times."""
    seeds = [11, 12, 13, 14, 15]
    actions = random_actions(task, num_steps, ROWS, seed=0)
    together = played(BiDexHandsBatch(task, ROWS, num_threads=num_threads), [3, 0, 4, 1, 2], seeds, actions)
    for row, seed in enumerate(seeds):
        alone = played(batch_of(task), [0], [seed], actions[:, [row]])
        for one, own in zip(together, alone, strict=True):
            terms = {name: term[[row]] for name, term in one.terms.items()}
            of_row = BatchStep._make([*(values[[row]] for values in one[:-1]), terms])
            assert_same_step(of_row, own)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_any_rows_can_be_stepped_in_any_order(num_threads: int) -> None:
    batch = BiDexHandsBatch("pen", ROWS, num_threads=num_threads)
    batch.reset(range(ROWS), range(ROWS))
    alone = [BiDexHandsBatch("pen") for _ in range(ROWS)]
    for row, single in enumerate(alone):
        single.reset([0], [row])
    rng = np.random.default_rng(0)
    for _ in range(8):
        rows = rng.permutation(ROWS)[: rng.integers(1, ROWS + 1)].tolist()
        action = rng.uniform(-1, 1, (len(rows), 2, 26))
        result = batch.step(rows, action)
        for place, row in enumerate(rows):
            own = alone[row].step([0], action[[place]])
            np.testing.assert_array_equal(result.state[place], own.state[0])
            np.testing.assert_array_equal(result.obs[place], own.obs[0])
            assert result.reward[place] == own.reward[0]


@TASK
def test_an_episode_is_its_seed_and_its_actions(task: str) -> None:
    actions = random_actions(task, 10, 1, seed=0)
    first = played(batch_of(task), [0], [7], actions)
    played(batch_of(task), [0], [8], actions[:4])
    for one, again in zip(first, played(batch_of(task), [0], [7], actions), strict=True):
        assert_same_step(one, again)
    for one, elsewhere in zip(first, played(BiDexHandsBatch(task), [0], [7], actions), strict=True):
        assert_same_step(one, elsewhere)


@TASK
def test_a_restored_row_goes_on_as_before(task: str) -> None:
    batch = batch_of(task, 2)
    batch.reset([0, 1], [3, 4])
    before, after = random_actions(task, 5, 1, seed=0), random_actions(task, 8, 1, seed=1)
    for action in before:
        batch.step([1], action)
    snapshot = batch.snapshot(1)
    first = [batch.step([1], action) for action in after]
    batch.reset([1], [99])  # with another goal
    for _ in range(2):
        batch.restore(1, snapshot)
        for action, expected in zip(after, first, strict=True):
            assert_same_step(batch.step([1], action), expected)


def test_a_restored_row_has_the_time_that_it_had() -> None:
    batch = BiDexHandsBatch("over")
    batch.reset([0], [0])
    still = np.zeros((1, 2, 20))
    for _ in range(3):
        batch.step([0], still)
    snapshot = batch.snapshot(0)
    for _ in range(2):
        batch.restore(0, snapshot)
        ends = [batch.step([0], still).truncated[0] for _ in range(72)]
        assert ends == [False] * 71 + [True]


@TASK
def test_no_rows_are_no_mistake(task: str) -> None:
    batch, fact = batch_of(task), FACTS[task]
    observed = batch.reset([], [])
    assert (observed.obs.shape, observed.state.shape) == ((0, 2, fact.obs), (0, fact.state))
    result = batch.step([], np.zeros((0, 2, fact.action)))
    assert (result.obs.shape, result.reward.shape) == ((0, 2, fact.obs), (0,))


def test_a_snapshot_of_an_ended_episode_is_ended_and_one_of_an_open_one_open() -> None:
    batch = BiDexHandsBatch("over")
    batch.reset([0], [0])
    still = np.zeros((1, 2, 20))
    opened = batch.snapshot(0)
    batch.simulation.world(0).joint("object_free").qpos[2] = 0.1
    batch.simulation.settle(0)
    assert batch.step([0], still).terminated[0]
    ended = batch.snapshot(0)
    batch.restore(0, opened)
    batch.step([0], still)
    batch.restore(0, ended)
    with pytest.raises(ValueError, match="after the episode's end"):
        batch.step([0], still)
