"""The whole loop on real tasks: three rounds of the smoke preset end with a finished run and say nothing on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAPER_TASKS = (
    "ant-2x4",
    "ant-4x2",
    "halfcheetah-2x3",
    "halfcheetah-3x2",
    "halfcheetah-6x1",
    "walker2d-2x3",
    "walker2d-3x2",
)
QUICK = ("ant-4x2", "halfcheetah-6x1")


def _train(task: str, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`dima train` on `task` in a process of its own, in which every warning is shown."""
    words = [f"env=mamujoco/{task}", "preset=smoke", "device=cpu", "num_threads=1", f"out={out}", *overrides]
    return subprocess.run(
        [sys.executable, "-W", "always", "-m", "dima.run.cli", "train", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def _ours(stderr: str) -> list[str]:
    """The lines of `stderr` that our own packages caused."""
    root = str(Path(__file__).parents[2])
    return [line for line in stderr.splitlines() if root in line and "site-packages" not in line]


def _check(task: str, out: Path, *overrides: str) -> None:
    result = _train(task, out, *overrides)
    assert result.returncode == 0, result.stderr
    assert _ours(result.stderr) == []
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rounds = [row for row in rows if "world_model/denoiser_loss" in row and "policy/entropy" in row]
    assert len(rounds) == 3
    evaluations = json.loads((out / "scores.json").read_text())["evaluations"]
    assert [evaluation["env_steps"] for evaluation in evaluations] == [0, 60]


@pytest.mark.mujoco
@pytest.mark.parametrize("task", QUICK)
def test_smoke(task: str, tmp_path: Path) -> None:
    _check(task, tmp_path / "run")


@pytest.mark.mujoco
@pytest.mark.slow
@pytest.mark.parametrize("task", [*(t for t in PAPER_TASKS if t not in QUICK), "humanoid-17x1"])
def test_smoke_on_every_task_of_the_paper(task: str, tmp_path: Path) -> None:
    _check(task, tmp_path / "run")


@pytest.mark.mujoco
@pytest.mark.slow
def test_smoke_with_local_observations(tmp_path: Path) -> None:
    _check("walker2d-3x2", tmp_path / "run", "env.obs_mode=local")
