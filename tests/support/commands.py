"""Runs `dima` commands in processes of their own, as a person would, on the small plug-in model and environment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

POINT_TEAM = ("env._target_=tests.support.point_team.PointTeamConfig",)
LINEAR_MODEL = ("world_model._target_=tests.support.linear_model.LinearModelConfig",)

SMALL = (
    *POINT_TEAM,
    *LINEAR_MODEL,
    "preset=smoke",
    "device=cpu",
    "num_threads=1",
    "policy.num_rollouts=16",
    "policy.horizon=3",
    "policy.mappo.epochs=2",
    "replay.capacity=1000",
    "env_steps=120",
    "trainer.collect_steps=15",
    "trainer.random_steps=30",
    "trainer.start_steps=30",
    "trainer.updates=3",
    "trainer.policy_start_round=2",
    "trainer.policy_updates=2",
    "trainer.eval_every=60",
    "trainer.checkpoint_every=30",
)
"""A whole training run in a second: 8 rounds of 15 steps in episodes of 40, a checkpoint at every second round."""

FIT = (
    *LINEAR_MODEL,
    "preset=smoke",
    "device=cpu",
    "num_threads=1",
    "updates=40",
    "log_every=10",
    "checkpoint_every=10",
)
"""An offline fit in half a second."""

COMPONENTS = ("collector", "optimizers", "policy", "random", "replay", "world_model")
"""What a checkpoint of `dima train` holds."""

FIT_COMPONENTS = ("optimizers", "random", "world_model")
"""What a checkpoint of `dima fit` holds."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (negative: killed by that signal) and what it printed."""

    code: int
    stdout: str
    stderr: str


def dima(*arguments: str, cwd: Path, limit_s: float = 120, **variables: str) -> Outcome:
    """Run `dima ARGUMENTS` in `cwd` to its end, `limit_s` seconds at most, with environment `variables` added."""
    child = start(*arguments, cwd=cwd, **variables)
    child.join(limit_s)
    assert child.exitcode is not None, f"the command did not end within {limit_s} s"
    return Outcome(child.exitcode, (cwd / "stdout").read_text(), (cwd / "stderr").read_text())


def start(*arguments: str, cwd: Path, **variables: str) -> multiprocessing.process.BaseProcess:
    """Start `dima ARGUMENTS` in `cwd` without waiting for it; its output goes to files `stdout` and `stderr` there."""
    child = _context().Process(target=_run_child, args=(list(arguments), str(cwd), variables))
    child.start()
    return child


def final_tensors(run: Path, components: Sequence[str] = COMPONENTS) -> dict[str, dict[str, Tensor]]:
    """Every tensor of a run's latest checkpoint, by component."""
    latest = run / "checkpoints" / "latest"
    return {name: load_file(latest / f"{name}.safetensors") for name in components}


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """Run a command that must fail, in this process and the present folder, and return its one line.

    Exit code 2, one line that names the command, and nothing below `folder` has changed.
    """
    from dima.run import cli

    before = _everything(folder)
    assert cli.main(list(arguments)) == 2
    assert _everything(folder) == before, "something was left half-written"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dima {arguments[0]}: ")
    return line


def _everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(place), place.stat().st_mtime_ns if place.is_file() else 0) for place in folder.rglob("*"))


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    clocks = ("time_s", "imagination/steps_per_s")
    return [
        {name: value for name, value in json.loads(line).items() if name not in clocks and not name.startswith("time/")}
        for line in lines
    ]


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    """A server that has imported everything once, from which each command is forked within milliseconds."""
    context = multiprocessing.get_context("forkserver")
    commands = [
        f"dima.run.{name}"
        for name in ("train", "evaluate", "collect", "fit", "infer", "predict", "bench", "prediction_figures")
    ]
    preloaded = ["torch._dynamo", *commands, "tests.support.linear_model"]
    context.set_forkserver_preload(preloaded)
    return context


def _run_child(arguments: list[str], cwd: str, variables: dict[str, str]) -> None:
    # Started in the background by a script, as CI may be, tests inherit an ignored SIGINT; in a terminal they do not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.update({"OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables})
    from dima.run import cli

    with (
        open("stdout", "w") as stdout,
        open("stderr", "w") as stderr,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        code = cli.main(arguments)
    sys.exit(code)
