"""DIMA on HalfCheetah, killed ten times without warning, ends in the same bits as a run that nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.support.commands import dima, final_tensors, rows, start

RUN = (
    "env=mamujoco/halfcheetah-2x3",
    "preset=smoke",
    "device=cpu",
    "num_threads=1",
    "env.episode_steps=50",
    "env_steps=480",
    "trainer.eval_every=160",
    "trainer.checkpoint_every=20",
    "out=run",
)
"""24 rounds of 20 steps in episodes of 50, a checkpoint after each round: half the time goes into saving."""

KILLS = 10


def _num_rows(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.is_file() else 0


def _run_and_kill(words: tuple[str, ...], folder: Path, chance: random.Random) -> None:
    """Start the command, wait for one or two more rounds and a random moment of the next, and kill it."""
    run = folder / "run"
    before = _num_rows(run) if (run / "config.yaml").is_file() else 0
    child = start("train", *words, cwd=folder)
    deadline = time.monotonic() + 120
    # Resuming first cuts the rows behind the checkpoint, so the count may fall before it grows.
    while _num_rows(run) < before + chance.choice((1, 2)) and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(chance.uniform(0.0, 0.3))
    assert child.is_alive(), "the run ended before it could be killed: give it more env steps"
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.mujoco
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    chance = random.Random(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert dima("train", *RUN, cwd=whole).code == 0
    _run_and_kill(RUN, broken, chance)
    for _ in range(KILLS - 1):
        _run_and_kill(("resume=run",), broken, chance)
    outcome = dima("train", "resume=run", cwd=broken)
    assert outcome.code == 0, outcome.stderr
    expected, got = final_tensors(whole / "run"), final_tensors(broken / "run")
    for component, tensors in expected.items():
        for name, tensor in tensors.items():
            assert torch.equal(got[component][name], tensor), f"{component} {name}"
    assert rows(broken / "run") == rows(whole / "run")
