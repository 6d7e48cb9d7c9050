"""`dima infer`: a record that keeps its schema, the same for the same seed, of held-out data; or one clear line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from dima.run import cli
from dima.run.infer_schema import read
from tests.support.commands import FIT, dima, refusal
from tests.support.datasets import edit_header, replace_episode
from worldmodel.dataset import read_dataset

ASKED = ("states=40", "samples=8", "resamples=100", "latency_decisions=2", "device=cpu", "num_threads=1")
QUICK = ("embedding_points=0", "latency_decisions=0")
"""Without what takes longest."""

FIGURES = {"inference.png", "embedding.png", "density.png", "fan.png", "ranks.png"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `mix` and `lin`; of `mix` runs `globediff`, `vae`, `mlp` (joint); of `lin` `lines` and `model`."""
    folder = tmp_path_factory.mktemp("place")
    smoke = ("preset=smoke", "device=cpu", "num_threads=1", "updates=6")
    fit = ("fit", "data=mix", *smoke)
    for words in (
        ("collect", "env=toy/mixture", "env.episode_steps=20", "episodes=10", "num_workers=1", "out=mix"),
        ("collect", "env=toy/linear", "env.episode_steps=20", "episodes=6", "num_workers=1", "out=lin"),
        (*fit, "inference=globediff", "checkpoint_every=3", "out=globediff"),
        (*fit, "inference=vae", "out=vae"),
        (*fit, "inference=mlp", "inference.auxiliary.source=joint", "inference.auxiliary.history_steps=0", "out=mlp"),
        ("fit", "data=lin", *smoke, "inference=mlp", "out=lines"),
        ("fit", "data=lin", *FIT, "out=model"),
    ):
        outcome = dima(*words, cwd=folder)
        assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may spoil, and the folder to be in."""
    copy = shutil.copytree(place, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(copy)
    return copy


def infer(folder: Path, *words: str) -> dict[str, Any]:
    """Run the command and return its record, checked against the schema."""
    assert cli.main(["infer", *ASKED, *words]) == 0
    (out,) = (word.removeprefix("out=") for word in words if word.startswith("out="))
    return read(folder / out / "inference.json")


def without_clock(record: dict[str, Any]) -> dict[str, Any]:
    runs = {label: {**run, "latency": None} for label, run in record["runs"].items()}
    return {**record, "runs": runs, "runtime": None}


def value(entry: dict[str, Any], *names: str) -> float:
    for name in names:
        entry = entry[name]
    return entry["value"]


def test_everything_is_measured_side_by_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("runs=[globediff,vae,mlp,oracle,joint]", "data=mix", "embedding_points=300", "out=i")
    record = infer(here, *words)
    assert (record["env"], record["states"], record["samples"], record["agents"]) == ("toy/mixture-2x1", 40, 8, 2)
    assert record["bootstrap"] == {"resamples": 100, "by": "moments"}
    runs = record["runs"]
    assert list(runs) == ["globediff", "vae", "mlp", "oracle", "joint"]
    assert runs["globediff"]["reads"] == "own observation and the 3 before"
    assert (runs["mlp"]["reads"], runs["mlp"]["auxiliary"]) == ("all agents' observations", "joint")
    assert (runs["oracle"]["reads"], runs["oracle"]["auxiliary"]) == ("the true state", "state")
    assert [runs[label]["latent"] is None for label in runs] == [False, False, True, True, True]
    for name in ("error_mean", "error_draw", "energy_score"):
        assert runs["oracle"]["scores"][name]["value"] == 0
        assert runs["mlp"]["scores"][name]["value"] > 0
    mlp = runs["mlp"]["scores"]
    assert mlp["error_mean"]["value"] == pytest.approx(mlp["error_draw"]["value"], rel=1e-4)
    assert value(mlp["coverage"], "90") < 0.05
    assert runs["joint"]["scores"] is None
    assert runs["joint"]["latency"]["one"]["wall_ms"] > 0
    assert set(record["baselines"]) == {
        "mean",
        "linear, own observation and the 3 before",
        "linear, all agents' observations",
        "exact law",
    }
    assert set(record["differences"]) >= {"vae - globediff", "oracle - mlp"}
    assert {entry.name for entry in (here / "i").iterdir()} == {"inference.json", *FIGURES}
    for name in FIGURES:
        assert float(np.std(matplotlib.image.imread(here / "i" / name))) > 0.03, f"{name} is blank"
    shown = capsys.readouterr().out
    for text in ("globediff", "(linear)", "(exact law)", "own observation and the 3 before", "joint: it hands", "nats"):
        assert text in shown


def test_a_perfect_sampler_is_the_yardstick_of_modes(here: Path) -> None:
    record = infer(here, "run=globediff", "data=mix", *QUICK, "samples=64", "out=i")
    law, exact = record["law"], record["baselines"]["exact law"]
    assert law["variance_within"] == pytest.approx(4 * 0.1**2)  # S std^2
    assert law["weights"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert value(exact, "modes", "nearest_error") == pytest.approx(law["variance_within"], rel=0.1)
    assert value(exact, "modes", "weight_error") < 0.05
    assert value(exact, "scores", "coverage", "50") == pytest.approx(0.5, abs=0.15)
    assert value(record["runs"]["globediff"], "modes", "nearest_error") > 2 * law["variance_within"]
    scores = {name: value(each, "scores", "energy_score") for name, each in record["baselines"].items()}
    assert scores["exact law"] < scores["mean"]
    assert value(record["baselines"]["mean"], "scores", "error_mean") == pytest.approx(1, abs=0.4)


def test_a_linear_task_has_no_modes_and_a_strong_regression(here: Path) -> None:
    record = infer(here, "run=lines", "data=lin", *QUICK, "states=20", "out=i")
    assert (record["law"], record["embedding"]) == (None, None)
    (reads,) = {run["reads"] for run in record["runs"].values()}
    linear = value(record["baselines"][f"linear, {reads}"], "scores", "error_mean")
    assert linear < value(record["runs"]["lines"], "scores", "error_mean")
    assert linear < value(record["baselines"]["mean"], "scores", "error_mean")
    assert {entry.name for entry in (here / "i").iterdir()} == {
        "inference.json",
        *(FIGURES - {"embedding.png", "density.png"}),
    }


@pytest.mark.slow
def test_the_seed_decides(here: Path) -> None:
    words = ("runs=[globediff,vae]", "data=mix", "latency_decisions=0", "embedding_points=120")
    first, again, other = (
        infer(here, *words, f"seed={seed}", f"out={out}") for seed, out in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert without_clock(again) == without_clock(first)
    energies = [value(record["runs"]["vae"], "scores", "energy_score") for record in (first, other)]
    assert energies[0] != energies[1]


@pytest.mark.slow
def test_moments_come_from_held_out_episodes(here: Path) -> None:
    """What the figure shows as the truth is what the held-out episode holds."""
    held_out = json.loads((here / "globediff/manifest.json").read_text())["data"]["held_out_episodes"]
    record = infer(here, "run=globediff", "data=mix", *QUICK, "out=i")
    assert record["data"] | {"path": 0, "fingerprint": 0} == {
        "path": 0, "fingerprint": 0, "episodes": 2, "steps": 40, "which": "held_out",
    }  # fmt: skip
    fan = record["fan"]
    episode = read_dataset(here / "mix").trajectories[held_out[fan["episode"]]]
    truth = episode.state[:20, list(fan["dims"].values())].T
    torch.testing.assert_close(torch.tensor(fan["truth"]), truth)


def test_episodes_are_drawn_where_asked_for(here: Path) -> None:
    record = infer(here, "run=oracle", "data=mix", *QUICK, "resample=episodes", "held_out=0.5", "out=i")
    assert (record["bootstrap"]["by"], record["data"]["episodes"]) == ("episodes", 5)
    assert record["runs"]["oracle"]["run"] is None


@pytest.mark.slow
def test_an_older_checkpoint_and_the_default_folders(here: Path) -> None:
    assert cli.main(["infer", *ASKED, *QUICK, "run=globediff", "data=mix", "checkpoint=3"]) == 0
    (written,) = here.glob("globediff/infer/3-*/inference.json")
    assert read(written)["runs"]["globediff"]["checkpoint"] == 3
    assert cli.main(["infer", *ASKED, *QUICK, "runs=[joint,oracle]", "data=mix"]) == 0
    assert len(list(here.glob("runs/infer-*/inference.json"))) == 1


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart(here: Path) -> None:
    shutil.copytree(here / "vae", here / "other/vae", symlinks=True)
    record = infer(here, "runs=[vae,other/vae,oracle]", "data=mix", *QUICK, "out=i")
    assert list(record["runs"]) == ["here-vae", "other-vae", "oracle"]
    assert record["differences"]["other-vae - here-vae"]["energy_score"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `dima infer WORDS` says; it is one line, exit code 2, and the folder stays as it is."""
    return refusal(capsys, folder, "infer", *ASKED, *QUICK, *words)


MIX = ("run=globediff", "data=mix")

MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no run": (("data=mix",), "run = None: expected a run folder, or several with runs="),
    "one and several": ((*MIX, "runs=[vae]"), "expected a run folder, or several with runs="),
    "no runs": (("data=mix", "runs=[]"), "runs = .*: expected at least one run folder"),
    "the same run twice": (("data=mix", "runs=[vae,./vae]"), "runs = .*: expected different run folders"),
    "no data": (("run=globediff",), "data has no value; name a dataset folder: data=DIR"),
    "a run that is not there": (("run=nowhere", "data=mix"), "no run folder at 'nowhere'"),
    "a dataset as a run": (("run=mix", "data=mix"), "'mix' is not a run folder"),
    "data that is not there": (("run=vae", "data=nowhere"), "no dataset at 'nowhere'"),
    "a world model": (("run=model", "data=lin"), "run = 'model' is a run that learned no state inference; expected"),
    "another task": (("run=globediff", "data=lin"), "run = 'globediff' was fitted on another task: env_id is"),
    "one run of another task": (("runs=[globediff,lines]", "data=mix"), "run = 'lines' was fitted on another task"),
    "a checkpoint that is not there": ((*MIX, "checkpoint=7"), r"no checkpoint at 7 .*there are \[3, 6\]"),
    "too many": ((*MIX, "states=41"), r"states = 41: in 2 episode\(s\) there are 40 moments; ask for at most 40"),
    "no state": ((*MIX, "states=0"), "states = 0: expected at least 1"),
    "one sample": ((*MIX, "samples=1"), "samples = 1: expected at least 2"),
    "few resamples": ((*MIX, "resamples=10"), "resamples = 10: expected at least 100"),
    "no thread": ((*MIX, "num_threads=0"), "num_threads = 0: expected null or at least 1"),
    "an unknown resample": ((*MIX, "resample=steps"), "resample = 'steps'"),
    "occupied": ((*MIX, "out=mix"), "out = 'mix' holds other files"),
    "occupied by a run": ((*MIX, "out=vae"), "out = 'vae' holds another run"),
    "typo": ((*MIX, "sample=3"), "unknown key 'sample'; did you mean 'samples'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    monkeypatch.chdir(place)
    line = refused(place, capsys, *words)
    assert re.search(message, line), line


def nan_state(data: Path) -> None:
    replace_episode(data, 1, lambda e: dataclasses.replace(e, state=e.state.index_fill(0, torch.tensor(4), torch.nan)))


def constant_states(data: Path) -> None:
    for number in range(10):
        replace_episode(data, number, lambda e: dataclasses.replace(e, state=torch.ones_like(e.state)))


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "NaN": (nan_state, r"mix/episodes/00001.npz: Trajectory: state\[4, 0\] is nan"),
    "unfinished": (lambda data: edit_header(data, lambda h: h.update(complete=False)), "mix is unfinished"),
    "states that never vary": (constant_states, "mix: no entry of the state varies"),
    "another environment": (
        lambda data: edit_header(data, lambda h: h["env"].update(std=0.2)),
        "run = 'globediff' was fitted on another task: env.std is 0.1 there, 0.2 here",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_data_is_named_and_nothing_is_written(
    fault: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = SPOILT[fault]
    spoil(here / "mix")
    line = refused(here, capsys, *MIX)
    assert re.search(message, line), line


def test_episodes_that_were_trained_on_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dataset of the very episodes that a run was fitted on, without those that it held out."""
    kept = json.loads((here / "globediff/manifest.json").read_text())["data"]["held_out_episodes"]

    def drop(header: dict[str, Any]) -> None:
        header["episodes"] = header["episodes"][: min(kept)]
        header["num_episodes"] = len(header["episodes"])

    assert min(kept) >= 2
    edit_header(here / "mix", drop)
    assert "was fitted on the episodes of mix" in refused(here, capsys, *MIX, "states=2")


def test_runs_that_hold_out_different_episodes_do_not_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("data=mix", "inference=mlp", "preset=smoke", "device=cpu", "num_threads=1", "updates=2", "held_out=0.4")
    assert dima("fit", *words, "out=wider", cwd=here).code == 0
    line = refused(here, capsys, "runs=[globediff,wider]", "data=mix")
    assert "globediff and wider hold out different episodes: fit them with the same held_out" in line


def test_a_failure_on_the_way_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("dima.run.inference_figures.plot_ranks", fail)
    assert "no space left" in refused(here, capsys, *MIX, "out=new/i")


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "dima infer runs=[runs/globediff,runs/vae,runs/mlp,oracle,joint]" in shown
