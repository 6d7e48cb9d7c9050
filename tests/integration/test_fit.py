"""`dima fit`: what is held out stays out, a stopped fit goes on to the same bits, and a mistake writes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dima.run import cli
from dima.run.checkpoint import CheckpointStore
from tests.support.commands import (
    FIT,
    FIT_COMPONENTS,
    POINT_TEAM,
    SMALL,
    dima,
    final_tensors,
    rows,
    start,
)
from tests.support.datasets import edit_header, replace_episode
from worldmodel.dataset import read_dataset
from worldmodel.episode_files import episode_name
from worldmodel.types import Trajectory

HELD_OUT = 3
"""The number of the held-out episode of `data`, the only one of six."""


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of six episodes of 20 steps."""
    folder = tmp_path_factory.mktemp("collected")
    outcome = dima("collect", *POINT_TEAM, "policy=ou", "episodes=6", "num_workers=1", "out=data", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "data"


@pytest.fixture
def data(collected: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil, in the folder where the command runs."""
    return shutil.copytree(collected, tmp_path / "data")


@pytest.fixture(scope="module")
def unbroken(collected: Path) -> Path:
    """A fit on it that nobody disturbed; the dataset lies beside it."""
    outcome = dima("fit", "data=data", *FIT, "out=run", cwd=collected.parent)
    assert outcome.code == 0, outcome.stderr
    return collected.parent / "run"


@pytest.fixture
def run(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of both that a test may spoil."""
    shutil.copytree(unbroken.parent / "data", tmp_path / "data")
    return shutil.copytree(unbroken, tmp_path / "run", symlinks=True)


def fit(data: Path, *words: str, out: str = "run") -> Path:
    """Fit on `data` and return the run folder."""
    outcome = dima("fit", f"data={data.name}", *FIT, *words, f"out={out}", cwd=data.parent)
    assert outcome.code == 0, outcome.stderr
    return data.parent / out


def differences(run: Path, other: Path) -> list[str]:
    """The names of tensors that are not the same to the bit."""
    got, expected = final_tensors(run, FIT_COMPONENTS), final_tensors(other, FIT_COMPONENTS)
    assert {name: tensors.keys() for name, tensors in got.items()} == {n: t.keys() for n, t in expected.items()}
    return [
        f"{component} {name}"
        for component, tensors in expected.items()
        for name, tensor in tensors.items()
        if not torch.equal(got[component][name], tensor)
    ]


def assert_same_fit(run: Path, unbroken: Path) -> None:
    assert differences(run, unbroken) == []
    assert rows(run) == rows(unbroken)


def test_a_run_folder_holds_what_was_promised(unbroken: Path) -> None:
    assert {entry.name for entry in unbroken.iterdir()} == {
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "checkpoints",
    }
    assert CheckpointStore(unbroken / "checkpoints", 2).steps() == [30, 40]
    manifest = json.loads((unbroken / "manifest.json").read_text())
    assert manifest["is_finished"]
    assert manifest["choices"] == {"world_model": "custom", "preset": "smoke"}
    assert manifest["spec"]["env_id"] == "test/point-team"
    dataset = read_dataset(unbroken.parent / "data")
    checksums = [entry["sha256"] for entry in dataset.header["episodes"]]
    assert set(manifest["data"].pop("training_episodes")) == set(checksums) - {checksums[HELD_OUT]}
    assert manifest["data"] == {
        "path": "data",
        "fingerprint": dataset.fingerprint,
        "training_steps": 100,
        "held_out_episodes": [HELD_OUT],
        "held_out_steps": 20,
    }


def test_rows_are_dense_at_first_and_tell_both_losses(unbroken: Path) -> None:
    written = rows(unbroken)
    assert [row["updates"] for row in written] == [0, 1, 2, 5, 10, 20, 30, 40]
    assert {row["env_steps"] for row in written} == {100}
    held_out = {f"held_out/{name}" for name in ("loss", "dynamics_loss", "decoder_loss", "decoder_error")}
    training = {f"world_model/{name}" for name in ("loss", "dynamics_loss", "decoder_loss", "dynamics_grad_norm")}
    assert held_out <= set(written[0])
    assert not training & set(written[0])
    for row in written[1:]:
        assert held_out | training <= set(row)
        for where in ("world_model", "held_out"):
            parts = row[f"{where}/dynamics_loss"] + row[f"{where}/decoder_loss"]
            assert row[f"{where}/loss"] == pytest.approx(parts, rel=1e-5)


def test_the_losses_fall_and_are_shown(data: Path) -> None:
    outcome = dima("fit", "data=data", *FIT, "updates=150", "log_every=50", "out=run", cwd=data.parent)
    assert outcome.code == 0, outcome.stderr
    first, last = rows(data.parent / "run")[0], rows(data.parent / "run")[-1]
    for part, share in {"dynamics": 0.9, "decoder": 0.2}.items():  # the reward is not linear
        assert last[f"held_out/{part}_loss"] < share * first[f"held_out/{part}_loss"]
        shown = f"{last[f'world_model/{part}_loss']:.4f} │ {last[f'held_out/{part}_loss']:>8.4f}"
        assert re.search(rf"{part} +│ +150 │ +{re.escape(shown)}", outcome.stdout), outcome.stdout


def test_two_halves_equal_the_whole(data: Path) -> None:
    """With a learning rate that does not fall, or the halves would not know where the whole ends."""
    flat = "final_learning_rate=1.0"
    whole = fit(data, flat, out="whole")
    half = fit(data, flat, "updates=20", out="half")
    with pytest.raises(AssertionError):
        assert_same_fit(half, whole)
    outcome = dima("fit", "resume=half", "updates=40", cwd=data.parent)
    assert outcome.code == 0, outcome.stderr
    assert_same_fit(half, whole)
    resumes = json.loads((half / "manifest.json").read_text())["resumes"]
    assert [resume["updates"] for resume in resumes] == [20]


LONG = ("updates=300", "log_every=20", "checkpoint_every=20")


@pytest.fixture(scope="module")
def long(collected: Path) -> Path:
    """A longer fit that nobody disturbed."""
    return fit(collected, *LONG, out="long")


def kill_and_resume(data: Path, is_time: Callable[[Path], bool]) -> Path:
    """Kill a fit with SIGKILL when `is_time` says so, and resume it until it is through."""
    run = data.parent / "run"
    child = start("fit", "data=data", *FIT, *LONG, "out=run", cwd=data.parent)
    while not is_time(run):
        assert child.exitcode is None, (data.parent / "stderr").read_text()
        time.sleep(0.0002)
    child.kill()
    child.join()
    assert not json.loads((run / "manifest.json").read_text())["is_finished"], "the kill came too late"
    outcome = dima("fit", "resume=run", cwd=data.parent)
    assert outcome.code == 0, outcome.stderr
    return run


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before the first row": lambda run: (run / "config.yaml").exists(),
    "before the first checkpoint": lambda run: _num_rows(run) >= 4,
    "while saving": lambda run: (run / "checkpoints/.100.writing").exists(),
    "behind a checkpoint": lambda run: _num_rows(run) >= 12,
}


def _num_rows(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before the first row", marks=pytest.mark.slow),
        pytest.param("before the first checkpoint", marks=pytest.mark.slow),
        "while saving",
        pytest.param("behind a checkpoint", marks=pytest.mark.slow),
    ],
)
def test_killed_fits_go_on_to_the_same_bits(moment: str, data: Path, long: Path) -> None:
    run = kill_and_resume(data, MOMENTS[moment])
    assert_same_fit(run, long)
    assert not list((run / "checkpoints").glob(".*.writing"))


def test_a_finished_fit_resumed_shows_its_table_again(run: Path, unbroken: Path) -> None:
    outcome = dima("fit", "resume=run", cwd=run.parent)
    assert outcome.code == 0, outcome.stderr
    assert f"{rows(unbroken)[-1]['held_out/decoder_loss']:.4f}" in outcome.stdout
    assert_same_fit(run, unbroken)


def test_an_older_checkpoint_can_be_gone_on_from(run: Path, unbroken: Path) -> None:
    outcome = dima("fit", "resume=run", "checkpoint=30", cwd=run.parent)
    assert outcome.code == 0, outcome.stderr
    assert "removed checkpoint 40: the run goes on from 30 updates" in outcome.stdout
    assert_same_fit(run, unbroken)


def scaled(episode: Trajectory) -> Trajectory:
    """Other numbers in the same shapes."""
    return dataclasses.replace(episode, state=3 - 2 * episode.state, obs=1 + episode.obs, reward=-5 * episode.reward)


def test_held_out_episodes_leave_no_trace_in_what_is_learned(data: Path, unbroken: Path) -> None:
    replace_episode(data, HELD_OUT, scaled)
    run = fit(data)
    assert differences(run, unbroken) == []
    for row, other in zip(rows(run), rows(unbroken), strict=True):
        assert row["held_out/loss"] != other["held_out/loss"]
        assert {name: value for name, value in row.items() if not name.startswith("held_out/")} == {
            name: value for name, value in other.items() if not name.startswith("held_out/")
        }


def test_training_episodes_do(data: Path, unbroken: Path) -> None:
    """The comparison can fail."""
    replace_episode(data, HELD_OUT - 1, scaled)
    assert "world_model state.dynamics.linear.weight" in differences(fit(data), unbroken)


def test_a_smaller_budget_is_a_part_of_the_same_data(data: Path, unbroken: Path) -> None:
    run = fit(data, "train_steps=47")
    described = json.loads((run / "manifest.json").read_text())["data"]
    assert (described["training_steps"], described["held_out_episodes"]) == (47, [HELD_OUT])
    assert [int(weights(each)["num_seen"]) for each in (run, unbroken)] == [47, 100]
    assert rows(run)[0]["held_out/loss"] == rows(unbroken)[0]["held_out/loss"], "held-out batches are the same"


def test_nothing_held_out(data: Path) -> None:
    run = fit(data, "held_out=0")
    assert json.loads((run / "manifest.json").read_text())["data"]["held_out_episodes"] == []
    assert rows(run)[-1]["env_steps"] == 120
    assert not [name for row in rows(run) for name in row if name.startswith("held_out")]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return CheckpointStore(run / "checkpoints", 2).load(only=("world_model",)).components["world_model"]


def updates_taken(run: Path) -> dict[str, int]:
    optimizers = CheckpointStore(run / "checkpoints", 2).load().components["optimizers"]
    return {name: state["updates"] for name, state in optimizers.items()}


def test_every_part_has_its_own_number_of_updates(data: Path) -> None:
    run = fit(data, "updates={dynamics: 14, decoder: 3}")
    assert updates_taken(run) == {"dynamics": 14, "decoder": 3}
    assert [row["updates"] for row in rows(run)] == [0, 1, 2, 3, 5, 10, 14]
    last = rows(run)[-1]
    assert "world_model/dynamics_loss" in last
    assert "world_model/decoder_loss" not in last
    assert "held_out/decoder_loss" in last
    outcome = dima("fit", "resume=run", "updates={dynamics: 14, decoder: 9}", cwd=data.parent)
    assert outcome.code == 2
    assert "'decoder' had stopped after 3, so it cannot go on to 9" in outcome.stderr
    assert [row["updates"] for row in rows(run)] == [0, 1, 2, 3, 5, 10, 14]


def test_a_part_without_updates_keeps_its_first_weights(data: Path) -> None:
    run = fit(data, "updates={dynamics: 5, decoder: 0}")
    other = fit(data, "updates={dynamics: 0, decoder: 5}", out="other")
    assert updates_taken(run) == {"dynamics": 5, "decoder": 0}
    assert {row["held_out/decoder_loss"] for row in rows(run)} == {rows(run)[0]["held_out/decoder_loss"]}
    changed = {name for name, tensor in weights(run).items() if not torch.equal(tensor, weights(other)[name])}
    assert changed == {f"{part}.linear.{name}" for part in ("dynamics", "decoder") for name in ("weight", "bias")}


def test_dima_is_fitted_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """The real model, its own preset: normalisers, codebooks, dropout, three parts."""
    words = ("env=toy/linear", "env.episode_steps=25", "episodes=5", "num_workers=1", "out=data")
    assert dima("collect", *words, cwd=tmp_path).code == 0
    words = ("data=data", "preset=smoke", "device=cpu", "num_threads=1", "final_learning_rate=1.0")
    words = (*words, "log_every=4", "checkpoint_every=4")
    assert dima("fit", *words, "updates=8", "out=whole", cwd=tmp_path).code == 0
    assert dima("fit", *words, "updates=4", "out=run", cwd=tmp_path).code == 0
    outcome = dima("fit", "resume=run", "updates=8", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same_fit(tmp_path / "run", tmp_path / "whole")
    assert {"held_out/denoiser_loss", "world_model/reward_termination_loss"} <= set(rows(tmp_path / "run")[-1])
    _assert_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path / "run")


def _assert_a_checkpoint_that_does_not_fit_changes_nothing(run: Path) -> None:
    config, before = run / "config.yaml", (run / "metrics.jsonl").read_text()
    saved = config.read_text()
    wider = saved.replace("hidden_dim: 32", "hidden_dim: 24")
    assert wider != saved
    config.write_text(wider)
    outcome = dima("fit", "resume=run", "checkpoint=4", cwd=run.parent)
    assert outcome.code == 2
    assert "does not fit the model that config.yaml describes" in outcome.stderr
    assert (run / "metrics.jsonl").read_text() == before
    assert (run / "checkpoints/latest").resolve().name == "8"


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(place), place.stat().st_mtime_ns) for place in folder.rglob("*") if place.is_file())


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `dima WORDS` in `folder` says; it is one line, exit code 2, and the folder stays as it is."""
    monkeypatch.chdir(folder)
    before, places = everything(folder), sorted(folder.rglob("*"))
    assert cli.main(words) == 2
    assert everything(folder) == before
    assert sorted(folder.rglob("*")) == places, "something was left half-written"
    (line,) = capsys.readouterr().err.splitlines()
    return line


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no data": ((*FIT,), "data has no value; name a dataset folder: data=DIR"),
    "data that is not there": ((*FIT, "data=nowhere"), "no dataset at 'nowhere'"),
    "an environment": ((*FIT, "data=data", "env=toy/linear"), "env=toy/linear: of no use to dima fit"),
    "a plug-in environment": ((*FIT, "data=data", *POINT_TEAM), r"env\._target_=.*: of no use to dima fit"),
    "training's updates": ((*FIT, "data=data", "trainer.updates=3"), "trainer.updates=3: of no use to dima fit"),
    "training's steps": ((*FIT, "data=data", "env_steps=3"), "env_steps=3: of no use to dima fit"),
    "a policy": ((*FIT, "data=data", "policy.horizon=3"), "policy.horizon=3: of no use to dima fit"),
    "unknown part": (
        (*FIT, "data=data", "updates={dynamics: 3, decoder: 2, actor: 7}"),
        "the world model has no part 'actor'; its parts are dynamics, decoder",
    ),
    "a part left out": ((*FIT, "data=data", "updates={dynamics: 3}"), "expected a number for .* part 'decoder'"),
    "no updates": ((*FIT, "data=data", "updates=0"), "updates = 0: expected at least 1 update"),
    "updates of no part": ((*FIT, "data=data", "updates={dynamics: 0, decoder: 0}"), "expected at least 1 update"),
    "updates in words": ((*FIT, "data=data", "updates=many"), r"updates = 'many' \(str\): expected int or"),
    "a share above 1": ((*FIT, "data=data", "held_out=1.5"), "held_out = 1.5: expected a share from 0 to below 1"),
    "all held out": ((*FIT, "data=data", "held_out=0.95"), "data has 6 episodes: too few to hold out 0.95"),
    "too much asked": (
        (*FIT, "data=data", "train_steps=101"),
        "asked for 101 steps, but the training episodes hold 100",
    ),
    "a rate above 1": ((*FIT, "data=data", "final_learning_rate=2"), "final_learning_rate = 2.0: expected above 0"),
    "typo": ((*FIT, "data=data", "updatez=3"), "unknown key 'updatez'; did you mean 'updates'"),
    "unknown key of a plug-in": ((*FIT, "data=data", "world_model.foo=1"), "in world_model: unknown key 'foo'"),
    "unknown model": (("data=data", "world_model=dina"), "world_model=dina: .*did you mean 'dima'"),
    "a checkpoint of nothing": ((*FIT, "data=data", "checkpoint=3"), "checkpoint = 3: only of use with resume=RUN"),
    "occupied": ((*FIT, "data=data", "out=data"), "out = 'data' holds other files"),
    "nothing to resume": (("resume=nowhere",), "no run folder at 'nowhere'"),
    "a dataset to resume": (("resume=data",), "'data' is not a run folder"),
    "NaN in training": (
        (*FIT, "data=data", "held_out=0", "world_model.poison_at=3"),
        "'dynamics': loss or .* at its update 3",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    line = refused(data.parent, monkeypatch, capsys, "fit", *words)
    assert line.startswith("dima fit: ")
    assert re.search(message, line), line


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "NaN": (
        lambda data: replace_episode(
            data, 1, lambda e: dataclasses.replace(e, reward=e.reward.index_fill(0, torch.tensor(4), torch.nan))
        ),
        r"data/episodes/00001.npz: Trajectory: reward\[4\] is nan",
    ),
    "another size": (
        lambda data: edit_header(data, lambda header: header["spec"].update(state_dim=5)),
        r"data/episodes/00000.npz: Trajectory.state has shape \[21, 2\], .* 5",
    ),
    "an episode cut": (
        lambda data: os.truncate(data / episode_name(2), 700),
        "data/episodes/00002.npz is cut off or damaged",
    ),
    "an episode missing": (lambda data: (data / episode_name(5)).unlink(), "data is cut off: episodes/00005.npz is"),
    "unfinished": (lambda data: edit_header(data, lambda header: header.update(complete=False)), "data is unfinished"),
    "an environment that is none": (
        lambda data: edit_header(data, lambda header: header.update(env={"_target_": "os.system"})),
        "env._target_ = os.system: expected a subclass of",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_data_is_named_and_nothing_is_written(
    fault: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = SPOILT[fault]
    spoil(data)
    line = refused(data.parent, monkeypatch, capsys, "fit", *FIT, "data=data", "out=run")
    assert re.search(message, line), line


def test_an_occupied_folder_is_left_as_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(run.parent, monkeypatch, capsys, "fit", *FIT, "data=data", "out=run")
    assert "out = 'run' holds another run; choose another folder, or go on with resume=run" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "resume=run", "seed=3"), "seed=3: with resume=RUN only updates, log_every, .* may change"),
        (("fit", "resume=run", "data=other"), "data=other: with resume=RUN only"),
        (("fit", "resume=run", "world_model=dima"), "world_model=dima: with resume=RUN only"),
        (("fit", "resume=run", "checkpoint=7"), r"no checkpoint at 7 .*there are \[30, 40\]"),
        (("train", "resume=run"), "run is no run of dima train; go on with it: dima fit resume=run"),
        (("evaluate", "run=run"), "run was fitted offline: it holds no policy"),
        (("play", "run=run"), "run was fitted offline: it holds no policy"),
    ],
)
def test_what_a_fitted_run_is_not_for(words: tuple[str, ...], message: str, run: Path) -> None:
    before = everything(run)
    outcome = dima(*words, cwd=run.parent)
    assert outcome.code == 2
    (line,) = outcome.stderr.splitlines()
    assert re.search(message, line), line
    assert everything(run) == before


def test_a_trained_run_is_not_resumed_as_a_fit(tmp_path: Path) -> None:
    assert dima("train", *SMALL, "env_steps=15", "out=run", cwd=tmp_path).code == 0
    outcome = dima("fit", "resume=run", cwd=tmp_path)
    assert outcome.code == 2
    assert "run is no run of dima fit; go on with it: dima train resume=run" in outcome.stderr


def test_other_data_is_noticed_on_resuming(run: Path) -> None:
    replace_episode(run.parent / "data", HELD_OUT, scaled)
    before = everything(run)
    outcome = dima("fit", "resume=run", cwd=run.parent)
    assert outcome.code == 2
    assert "data is not the dataset that run was begun with: its content differs" in outcome.stderr
    assert everything(run) == before


def test_a_damaged_checkpoint_is_refused_and_the_offered_command_works(run: Path, unbroken: Path) -> None:
    file = run / "checkpoints/40/world_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    outcome = dima("fit", "resume=run", cwd=run.parent)
    assert outcome.code == 2
    offered = re.search(r"world_model.safetensors has .*: dima (fit resume=run checkpoint=30)$", outcome.stderr.strip())
    assert offered, outcome.stderr
    assert dima(*offered.group(1).split(), cwd=run.parent).code == 0
    assert_same_fit(run, unbroken)


def test_a_nan_on_the_way_names_the_last_good_checkpoint(data: Path) -> None:
    outcome = dima("fit", "data=data", *FIT, "held_out=0", "world_model.poison_at=25", "out=run", cwd=data.parent)
    assert outcome.code == 2
    message = "'dynamics': loss or gradient is not finite at its update 25 .*last good checkpoint: run/checkpoints/20$"
    assert re.search(message, outcome.stderr.strip())
    assert rows(data.parent / "run")[-1]["updates"] == 20


def test_ctrl_c_says_how_to_go_on(data: Path, long: Path) -> None:
    child = start("fit", "data=data", *FIT, *LONG, "out=run", cwd=data.parent)
    run = data.parent / "run"
    while not (run / "checkpoints/20").exists():
        assert child.exitcode is None
        time.sleep(0.001)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 130
    assert "go on with: dima fit resume=run" in (data.parent / "stdout").read_text()
    assert dima("fit", "resume=run", cwd=data.parent).code == 0
    assert_same_fit(run, long)


def test_the_default_folder_is_named_after_task_and_model(data: Path) -> None:
    outcome = dima("fit", "data=data", *FIT, "updates=1", "seed=4", cwd=data.parent)
    assert outcome.code == 0, outcome.stderr
    (run,) = data.parent.glob("runs/test/point-team/custom/fit-seed4-*")
    assert f"run folder: {run.relative_to(data.parent)}" in outcome.stdout
