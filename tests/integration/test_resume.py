"""A run that was stopped, however, goes on to the same bits as one that was not."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tests.support.commands import SMALL, dima, final_tensors, rows, start

SLOW_STEPS = "env.step_s=0.004"
"""Stretches a run to a second or two, so that a kill finds it at work."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    outcome = dima("train", *SMALL, "out=run", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "run"


def assert_same_run(run: Path, unbroken: Path) -> None:
    """Every tensor, every row and every score is the same."""
    for component, expected in final_tensors(unbroken).items():
        got = final_tensors(run)[component]
        assert got.keys() == expected.keys(), component
        for name, tensor in expected.items():
            assert torch.equal(got[name], tensor), f"{component} {name}"
    assert rows(run) == rows(unbroken)
    assert json.loads((run / "scores.json").read_text()) == json.loads((unbroken / "scores.json").read_text())


def test_two_halves_equal_the_whole(unbroken: Path, tmp_path: Path) -> None:
    assert dima("train", *SMALL, "out=run", "env_steps=60", cwd=tmp_path).code == 0
    outcome = dima("train", "resume=run", "env_steps=120", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(tmp_path / "run", unbroken)


def test_the_middle_of_an_episode_and_a_round_between_checkpoints_survive(unbroken: Path, tmp_path: Path) -> None:
    """90 env steps: 10 into the third episode; the rows written after the checkpoint are written anew."""
    assert dima("train", *SMALL, "out=run", "env_steps=105", cwd=tmp_path).code == 0
    (tmp_path / "run/checkpoints/latest").unlink()
    outcome = dima("train", "resume=run", "checkpoint=90", "env_steps=120", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(tmp_path / "run", unbroken)


def test_a_different_seed_is_a_different_run(unbroken: Path, tmp_path: Path) -> None:
    """The comparison can fail."""
    assert dima("train", *SMALL, "out=run", "seed=1", cwd=tmp_path).code == 0
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", unbroken)


def kill_and_resume(tmp_path: Path, wait: float) -> None:
    """Kill a run with SIGKILL after `wait` seconds at work and resume it until it is through."""
    child = start("train", *SMALL, SLOW_STEPS, "out=run", cwd=tmp_path)
    config = tmp_path / "run/config.yaml"
    while not config.exists():
        assert child.exitcode is None, (tmp_path / "stderr").read_text()
        time.sleep(0.001)
    time.sleep(wait)
    child.kill()
    child.join()
    outcome = dima("train", "resume=run", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize("wait", [0.3, 0.9])
def test_killed_runs_go_on_to_the_same_bits(unbroken: Path, tmp_path: Path, wait: float) -> None:
    kill_and_resume(tmp_path, wait)
    assert_same_run(tmp_path / "run", unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_runs_killed_at_ten_random_moments(unbroken: Path, tmp_path: Path, moment: int) -> None:
    kill_and_resume(tmp_path, random.Random(moment).uniform(0, 1.4))
    assert_same_run(tmp_path / "run", unbroken)


@pytest.mark.parametrize("env_steps", [0, 60])
def test_runs_killed_while_saving(unbroken: Path, tmp_path: Path, env_steps: int) -> None:
    child = start("train", *SMALL, "out=run", cwd=tmp_path)
    unfinished = tmp_path / f"run/checkpoints/.{env_steps}.writing"
    while not unfinished.exists() and child.exitcode is None:
        time.sleep(0.0002)
    child.kill()
    child.join()
    assert unfinished.exists(), "the kill came too late to hit the save"
    outcome = dima("train", "resume=run", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(tmp_path / "run", unbroken)
    assert not list((tmp_path / "run/checkpoints").glob(".*.writing"))


def test_dima_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """The real model: dropout, codebooks, normalisers, a key-value cache in the agent's carry."""
    dima_smoke = ("env=toy/linear", "world_model=dima", "preset=smoke", "device=cpu", "num_threads=1")
    assert dima("train", *dima_smoke, "out=unbroken", "env_steps=80", cwd=tmp_path).code == 0
    assert dima("train", *dima_smoke, "out=run", "env_steps=60", cwd=tmp_path).code == 0
    outcome = dima("train", "resume=run", "checkpoint=40", "env_steps=80", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(tmp_path / "run", tmp_path / "unbroken")


def test_a_run_from_before_there_was_an_engine_goes_on_as_it_was_imagined(tmp_path: Path) -> None:
    assert dima("train", *SMALL, "out=run", "env_steps=60", cwd=tmp_path).code == 0
    config = OmegaConf.load(tmp_path / "run/config.yaml")
    assert isinstance(config, DictConfig)
    del config["engine"], config["profile"]
    OmegaConf.save(config, tmp_path / "run/config.yaml")

    outcome = dima("train", "resume=run", "env_steps=120", "profile=true", cwd=tmp_path)

    assert outcome.code == 0, outcome.stderr
    assert "is of an older version: batches and noise of its parts come from new random streams" in outcome.stderr
    assert OmegaConf.load(tmp_path / "run/config.yaml").engine.imagination == "eager"
    assert (tmp_path / "run/profile/summary.txt").exists()
