"""From which fit, and to which data, a policy's inferencer goes back: never silently to others than it began with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dima.run.fit_data import fill
from dima.run.inference_config import InferenceTrainingConfig
from dima.run.inference_training import InferenceTraining
from dima.run.metrics import RoundMetrics
from dima.run.runtime import Randomness
from dima.run.settings import load_config, read_settings
from tests.support.commands import POINT_TEAM, SMALL, dima, final_tensors, rows
from worldmodel.dataset import read_dataset

COLLECT = ("collect", *POINT_TEAM, "policy=ou", "episodes=6", "num_workers=1", "out=data")
FIT = ("fit", "data=data", "preset=smoke", "device=cpu", "num_threads=1", "updates=20", "checkpoint_every=10")
TRAIN = ("train", *SMALL, "policy.policy.input=state", "inference.run=fit", "inference.updates=4")
COMPONENTS = ("inference", "policy", "random", "world_model")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset `data`, `fit` on it and `run`, a policy beside which it learned after every episode."""
    folder = tmp_path_factory.mktemp("begun")
    for words in (COLLECT, (*FIT, "inference=mlp", "out=fit"), (*TRAIN, "inference.every_episodes=1", "out=run")):
        outcome = dima(*words, cwd=folder)
        assert outcome.code == 0, outcome.stderr
        assert "warning" not in outcome.stderr
    return folder


@pytest.fixture
def here(begun: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return shutil.copytree(begun, tmp_path / "here", symlinks=True)


def refused(folder: Path, *words: str) -> str:
    """The one line with which a command must fail."""
    outcome = dima(*words, cwd=folder)
    assert outcome.code == 2, outcome.stdout
    [line] = outcome.stderr.strip().splitlines()[-1:]
    return line


def stop_before_the_first_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "run" / "checkpoints")


def collect_anew(folder: Path) -> None:
    shutil.rmtree(folder / "data")
    assert dima(*COLLECT, "seed=1", cwd=folder).code == 0


def test_a_run_without_a_checkpoint_begins_anew_from_its_fit(begun: Path, here: Path) -> None:
    stop_before_the_first_checkpoint(here)
    # What the fit learned since is no part of the run: its checkpoint of then is still there.
    assert dima("fit", "resume=fit", "updates=30", cwd=here).code == 0
    outcome = dima("train", "resume=run", cwd=here)
    assert outcome.code == 0, outcome.stderr
    expected, got = (final_tensors(folder / "run", COMPONENTS) for folder in (begun, here))
    for component, tensors in expected.items():
        for name, tensor in tensors.items():
            assert torch.equal(got[component][name], tensor), f"{component} {name}"
    assert rows(here / "run") == rows(begun / "run")


def without_fit(folder: Path) -> None:
    shutil.rmtree(folder / "fit")


def with_another_fit(folder: Path) -> None:
    shutil.rmtree(folder / "fit")
    assert dima(*FIT, "inference=mlp", "seed=1", "out=fit", cwd=folder).code == 0


def with_a_fit_that_went_on_for_long(folder: Path) -> None:
    assert dima("fit", "resume=fit", "updates=50", cwd=folder).code == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_fit, "no run folder at 'fit'; put that back, or begin a new run"),
        (with_another_fit, "which is another fit by now"),
        (with_a_fit_that_went_on_for_long, "no checkpoint at 20"),
    ],
)
def test_a_run_without_a_checkpoint_needs_the_fit_it_began_with(
    here: Path, spoil: Callable[[Path], None], message: str
) -> None:
    stop_before_the_first_checkpoint(here)
    spoil(here)
    before = {file.name: file.read_bytes() for file in (here / "run").iterdir()}
    line = refused(here, "train", "resume=run")
    assert "run stopped before its first checkpoint and begins anew from inference.run = 'fit'" in line
    assert message in line
    assert {file.name: file.read_bytes() for file in (here / "run").iterdir()} == before


@pytest.mark.parametrize("words", [(*TRAIN, "out=new"), ("train", "resume=run", "env_steps=160")])
def test_data_collected_anew_in_the_same_place_are_refused(here: Path, words: tuple[str, ...]) -> None:
    fingerprint = read_dataset(here / "data").fingerprint
    collect_anew(here)
    line = refused(here, *words)
    assert "data is not the dataset that fit was fitted on: its fingerprint is" in line
    assert f"expected {fingerprint}; put that one back" in line
    assert not (here / "new").exists()


def test_a_run_of_an_older_version_takes_the_data_that_are_there(here: Path) -> None:
    config = OmegaConf.load(here / "run/config.yaml")
    del config.inference["fingerprint"], config.inference["checkpoint"]
    OmegaConf.save(config, here / "run/config.yaml")
    collect_anew(here)
    outcome = dima("train", "resume=run", "env_steps=160", cwd=here)
    assert outcome.code == 0, outcome.stderr


def test_a_run_too_short_for_an_update_is_warned_of_once(here: Path) -> None:
    """Three episodes of 40 steps end in a run of 120."""
    outcome = dima(*TRAIN, "inference.every_episodes=4", "out=new", cwd=here)
    assert outcome.code == 0, outcome.stderr
    [warning] = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
    assert "inference.every_episodes = 4, but 120 env steps hold 3 whole episodes of 40 steps" in warning
    assert "say inference.every_episodes=3 or less" in warning
    assert not any("inference/new_error_before" in row for row in rows(here / "new"))


def test_episodes_that_end_together_bring_one_update_and_leave_no_debt(begun: Path) -> None:
    fit = read_settings(load_config(begun / "fit/config.yaml"))
    config = InferenceTrainingConfig(run="fit", every_episodes=4, updates=3, rehearsal=0.0, fit=fit)
    config = dataclasses.replace(config, fit=dataclasses.replace(fit, data=str(begun / "data")))
    data = read_dataset(begun / "data")
    cpu = torch.device("cpu")
    training = InferenceTraining(config, data.spec, Randomness(0, cpu))
    replay = fill(data.trajectories, data.spec, cpu)
    taken = []
    for ended in (3, 11, 0, 1, 1):  # 3, then 14 = 3 * 4 + 2, which leaves 2; then 3, then 4
        training.after_episodes(ended, replay, RoundMetrics(cpu))
        taken.append(training.optimizer.updates)
    assert taken == [0, 3, 3, 3, 6]
    assert training.episodes == 0


def with_another_task(folder: Path) -> None:
    """Its sizes are the same."""
    config = OmegaConf.load(folder / "fit/config.yaml")
    config.env.ignores_seed = True
    OmegaConf.save(config, folder / "fit/config.yaml")


@pytest.mark.parametrize(
    "words", [(*TRAIN, "out=new"), ("evaluate", "run=run", "inference=fit"), ("export", "run=run", "inference=fit")]
)
def test_a_fit_to_another_task_of_the_same_sizes_is_refused(here: Path, words: tuple[str, ...]) -> None:
    with_another_task(here)
    line = refused(here, *words, *(("out=new.pt2",) if words[0] == "export" else ()))
    assert "'fit' was fitted on another task: env.ignores_seed is True there, False here" in line


def test_a_damaged_fit_is_mended_as_every_command_says(here: Path) -> None:
    damaged = here / "fit/checkpoints/20/inference.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    export = ("export", "run=run", "inference=fit", "out=policy.pt2")
    for words in (export, ("evaluate", "run=run", "inference=fit"), (*TRAIN, "out=new")):
        line = refused(here, *words)
        assert line.endswith("; use the one before it: dima fit resume=fit checkpoint=10"), line
    assert dima("fit", "resume=fit", "checkpoint=10", cwd=here).code == 0
    outcome = dima(*export, cwd=here)
    assert outcome.code == 0, outcome.stderr


def test_the_scores_of_training_say_what_the_policy_acted_on(begun: Path) -> None:
    scores, manifest = (json.loads((begun / "run" / name).read_text()) for name in ("scores.json", "manifest.json"))
    assert scores["execution"] == manifest["execution"]
    assert scores["execution"]["state"]["kind"] == "mlp"
