"""Worker processes that collect while the main process learns: the same bits whoever dies, and nobody left behind."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from pathlib import Path

import pytest
import torch

from dima.run.runtime import derive_seed
from dima.run.snapshot import read_tensors
from envs.stream import episode_seed
from envs.toy.counter import CounterConfig, CounterEnv
from tests.support.commands import SMALL, dima, final_tensors, rows, start
from tests.support.processes import HAS_PROC, is_alive, spawned_by, wait_until

NUM_ENVS = 3
RUN = (
    *SMALL,
    "env._target_=tests.support.fragile_env.FragileConfig",
    f"trainer.num_envs={NUM_ENVS}",
    "trainer.collect_workers=2",
    "trainer.deterministic_every=3",
    "out=run",
)
"""Random actions, then samples, every third round deterministic; worker 0 has streams 0 and 1, worker 1 stream 2."""

SLOW_STEPS = "env.step_s=0.01"
"""Stretches a run to a second or two, so that a kill finds everybody at work."""

needs_proc = pytest.mark.skipif(not HAS_PROC, reason="needs /proc")


def seed_of(stream: int, episode: int) -> int:
    """What the environment is reset with."""
    return episode_seed(derive_seed(0, "collect"), stream, episode)


def killing(stream: int, episode: int, kills: int = 1) -> tuple[str, ...]:
    """Kill the worker in the middle of this episode."""
    return f"env.deadly_seed={seed_of(stream, episode)}", "env.mark=mark", f"env.kills={kills}"


def assert_same_run(run: Path, expected: Path) -> None:
    """Every tensor (weights, optimisers, replay, generators, steps in waiting), every row and every score."""
    got, wanted = final_tensors(run), final_tensors(expected)
    for component, tensors in wanted.items():
        assert got[component].keys() == tensors.keys(), component
        for name, tensor in tensors.items():
            assert torch.equal(got[component][name], tensor), f"{component} {name}"
    assert rows(run) == rows(expected)
    assert json.loads((run / "scores.json").read_text()) == json.loads((expected / "scores.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two workers that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = dima("train", *RUN, cwd=folder)
    assert (outcome.code, outcome.stderr) == (0, "")
    return folder / "run"


def test_a_killed_worker_is_named_and_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """Killed in the middle of an episode, within a round: also shows that two runs with one seed are the same."""
    outcome = dima("train", *RUN, *killing(stream=2, episode=1), cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "mark").read_text() == "x"
    [line] = outcome.stderr.splitlines()
    assert re.fullmatch(
        r"warning: collect worker 1 \(pid \d+\) was killed by SIGKILL while collecting 5 env steps in streams 2 to 2 "
        r"with the policy.*; a new one begins where it began, no step is lost",
        line,
    ), line
    assert_same_run(tmp_path / "run", undisturbed)


def test_two_halves_equal_the_whole(undisturbed: Path, tmp_path: Path) -> None:
    """Resumed where a run was through, and from an older checkpoint, in mid-episode."""
    assert dima("train", *RUN, "env_steps=75", cwd=tmp_path).code == 0
    outcome = dima("train", "resume=run", "checkpoint=60", "env_steps=120", cwd=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert_same_run(tmp_path / "run", undisturbed)


@needs_proc
def test_a_killed_run_leaves_nobody_and_goes_on_to_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches every process at a terminal; the workers leave it to the main process."""
    child = start("train", *RUN, SLOW_STEPS, cwd=tmp_path)
    assert child.pid is not None
    wait_until((tmp_path / "run/checkpoints/30").exists, "a checkpoint")
    workers = spawned_by(child.pid)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGINT)
    wait_until((tmp_path / "run/checkpoints/60").exists, "another checkpoint")
    assert spawned_by(child.pid) == workers
    child.kill()
    child.join()
    wait_until(lambda: not any(map(is_alive, workers)), "the workers' end")
    outcome = dima("train", "resume=run", cwd=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
@needs_proc
def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(tmp_path: Path) -> None:
    child = start("train", *RUN, "trainer.collect_workers=1", SLOW_STEPS, cwd=tmp_path)
    assert child.pid is not None
    wait_until((tmp_path / "run/checkpoints/30").exists, "a checkpoint")
    workers = spawned_by(child.pid)
    os.kill(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 130
    assert (tmp_path / "stderr").read_text() == ""
    assert "go on with: dima train resume=run" in (tmp_path / "stdout").read_text()
    assert len(workers) == 1
    assert not any(map(is_alive, workers))


def test_a_fault_of_the_environment_is_told_as_without_workers(tmp_path: Path) -> None:
    """At the 85th step of stream 0, when its steps are needed: the round before is trained on and saved.

    Evaluations take 80 steps of each of their environments, so that only the collector's gets that far.
    """
    fault = ("env._target_=tests.support.point_team.PointTeamConfig", "env.fault=not_finite", "env.fault_at=85")
    often = ("trainer.eval_every=1000", "trainer.checkpoint_every=15")
    outcome = dima("train", *RUN, *fault, *often, "trainer.num_envs=1", "trainer.collect_workers=1", cwd=tmp_path)
    assert outcome.code == 2
    message = (
        rf"dima train: environment test/point-team, after step 5 of the episode with seed {seed_of(0, 2)}: "
        r"state\[0\] has the value nan; expected a finite number; last good checkpoint: run/checkpoints/75\n"
    )
    assert re.fullmatch(message, outcome.stderr), outcome.stderr
    assert [row["env_steps"] for row in rows(tmp_path / "run")] == [0, 15, 30, 45, 60, 75]


def check_counts(run: Path, num_steps: int) -> None:
    """Replay holds each stream's episodes from the first on, each step once and in order."""
    replay = read_tensors(run / "checkpoints/latest/replay.safetensors")
    state, table = replay["state.state"], replay["state.episodes"].tolist()
    env = CounterConfig(num_agents=2, shortest_episode=3, episode_steps=40).build()
    assert isinstance(env, CounterEnv)
    seen, open_episodes = [0] * NUM_ENVS, [False] * NUM_ENVS
    row = 0
    for stream, _, length in table:  # oldest first
        seed = seed_of(stream, seen[stream])
        seen[stream] += 1
        high, low, step, _ = state[row : row + length + 1].T
        assert (high == seed // 2**16).all()
        assert (low == seed % 2**16).all()
        assert torch.equal(step, torch.arange(length + 1.0))
        assert not open_episodes[stream], "an episode went on after another had begun"
        open_episodes[stream] = length < env.length(seed)
        row += length + 1
    assert row == len(state)
    assert sum(length for _, _, length in table) == num_steps


@pytest.mark.parametrize(("workers", "unit"), [(1, "steps"), (2, "steps"), (2, "episodes")])
def test_every_step_is_there_once_and_in_order(workers: int, unit: str, tmp_path: Path) -> None:
    """With two workers, the first is killed in the middle of an episode."""
    words = ("env.kind=counter", f"trainer.collect_workers={workers}", f"trainer.collect_unit={unit}")
    kill = killing(stream=1, episode=1) if workers == 2 else ()
    outcome = dima("train", *RUN, *words, *kill, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.count("collect worker 0 ") == len(outcome.stderr.splitlines()) == len(kill) // 3
    check_counts(tmp_path / "run", rows(tmp_path / "run")[-1]["env_steps"])


def num_rows(run: Path) -> int:
    """Rounds that were written down."""
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("moment", range(5))
def test_workers_killed_at_random_moments(undisturbed: Path, tmp_path: Path, moment: int) -> None:
    """From outside, a random one in each of three rounds, whatever it is at: starting, waiting or collecting."""
    chance = random.Random(moment)
    child = start("train", *RUN, "env.step_s=0.03", cwd=tmp_path)
    assert child.pid is not None
    for kill in range(3):
        wait_until(lambda kill=kill: num_rows(tmp_path / "run") > kill, "another round")
        child.join(chance.uniform(0, 0.3))
        os.kill(chance.choice(spawned_by(child.pid)), signal.SIGKILL)
    child.join(120)
    assert child.exitcode == 0, (tmp_path / "stderr").read_text()
    assert len((tmp_path / "stderr").read_text().splitlines()) == 3
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.mujoco
def test_dima_on_halfcheetah_goes_on_in_mid_episode(tmp_path: Path) -> None:
    """The real model and simulator: the run is resumed with steps in waiting; its weights travel to the worker."""
    words = ("env=mamujoco/halfcheetah-2x3", "preset=smoke", "device=cpu", "num_threads=1", "trainer.collect_workers=1")
    assert dima("train", *words, "out=whole", "env_steps=80", cwd=tmp_path).code == 0
    assert dima("train", *words, "out=run", "env_steps=40", cwd=tmp_path).code == 0
    outcome = dima("train", "resume=run", "env_steps=80", cwd=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, "")
    got, wanted = final_tensors(tmp_path / "run"), final_tensors(tmp_path / "whole")
    for component, tensors in wanted.items():
        for name, tensor in tensors.items():
            assert torch.equal(got[component][name], tensor), f"{component} {name}"
