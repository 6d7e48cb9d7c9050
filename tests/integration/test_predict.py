"""`dima predict`: a record that keeps its schema, the same for the same seed, of held-out data; or one clear line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dima.run import cli
from dima.run.prediction_schema import read
from tests.support.commands import FIT, POINT_TEAM, SMALL, dima, refusal
from tests.support.datasets import edit_header, replace_episode
from worldmodel.dataset import read_dataset
from worldmodel.episode_files import episode_name

ASKED = ("horizon=3", "segments=6", "samples=2", "gain_states=4", "gain_samples=2", "resamples=100")
ASKED = (*ASKED, "device=cpu", "num_threads=1")
NO_GAINS = "gain_states=0"

FIGURES = {"prediction.png", "gains.png", "fan.png", "ranks.png"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with datasets and runs: `team` and its plug-in run `plain`, `toy` and its DIMA run `dima`."""
    folder = tmp_path_factory.mktemp("place")
    one = ("num_workers=1",)
    smoke = ("preset=smoke", "device=cpu", "num_threads=1", "updates=6")
    for words in (
        ("collect", *POINT_TEAM, "env.episode_steps=25", "policy=ou", "episodes=6", *one, "out=team"),
        ("collect", "env=toy/linear", "env.episode_steps=25", "policy=ou", "episodes=6", *one, "out=toy"),
        ("fit", "data=team", *FIT, "out=plain"),
        ("fit", "data=toy", *smoke, "out=dima"),
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


def predict(folder: Path, *words: str) -> dict[str, Any]:
    """Run the command and return its record, checked against the schema."""
    assert cli.main(["predict", *ASKED, *words]) == 0
    (out,) = (word.removeprefix("out=") for word in words if word.startswith("out="))
    return read(folder / out / "prediction.json")


def without_clock(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "runtime"}


def test_dima_is_measured_under_every_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders = ("descending", "cycle", "1,2,2,1")
    record = predict(here, "run=dima", "data=toy", "orders=[descending,cycle,[1,2,2,1]]", "out=p")
    assert (record["schema"], record["run"], record["checkpoint"], record["env"]) == (1, "dima", 6, "toy/linear-2x1")
    assert (record["horizon"], record["segments"], record["samples"], record["marks"]) == (3, 6, 2, [1, 3])
    assert tuple(record["orders"]) == orders
    assert set(record["differences"]) == {
        "cycle - descending",
        "1,2,2,1 - descending",
        "1,2,2,1 - cycle",
    }
    assert record["options"]["order"] == "descending"
    assert (record["no_action"], record["action_gain"]["note"]) == ("hidden", None)
    for order in record["orders"].values():
        assert len(order["action_gain"]) == len(order["action_gain_r2"]) == 2
        for field in ("state", "obs", "reward"):
            curve = order[field]
            assert len(curve["e"]) == 3
            assert set(curve["cumulative"]) == set(curve["ci95"]) == {"1", "3"}
            assert curve["cumulative"]["3"] == pytest.approx(sum(curve["e"]))
    assert set(record["baselines"]) == {"persistence", "no_action", "linear"}
    assert record["floor"]["obs"] is not None
    assert record["runtime"]["imagined_steps"] == 3 * 6 * 2 * 3
    assert {entry.name for entry in (here / "p").iterdir()} == {"prediction.json", *FIGURES}
    assert {(here / "p" / name).read_bytes()[:8] for name in FIGURES} == {PNG}
    shown = capsys.readouterr().out
    for name in (*orders, "(persistence)", "(linear)", "(no_action)", "(floor: true states decoded)", "agent 2"):
        assert name in shown


def test_a_plug_in_without_orders_is_measured_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment that cannot go back leaves a note in place of gains."""
    record = predict(here, "run=plain", "data=team", "horizon=16", "out=p")
    assert list(record["orders"]) == ["any"]
    assert record["differences"] == {}
    assert (record["model"], record["no_action"], record["floor"]["obs"]) == ("LinearModel", "mean", None)
    assert record["marks"] == [1, 5, 15, 16]
    assert record["orders"]["any"]["action_gain"] is None
    assert record["action_gain"]["note"] == "test/point-team cannot go back to an earlier moment"
    assert "no action gains: test/point-team cannot go back" in capsys.readouterr().out


@pytest.mark.slow
def test_the_seed_decides(here: Path) -> None:
    first = predict(here, "run=plain", "data=team", "out=a")
    again = predict(here, "run=plain", "data=team", "out=b")
    other = predict(here, "run=plain", "data=team", "seed=1", "out=c")
    assert without_clock(again) == without_clock(first)
    curves = [record["orders"]["any"]["state"]["e"] for record in (first, other)]
    assert curves[0] != curves[1]


@pytest.mark.slow
def test_the_seed_decides_for_dima(here: Path) -> None:
    words = ("run=dima", "data=toy", "orders=[random,cycle]")
    first, again = (predict(here, *words, f"out={out}") for out in ("a", "b"))
    assert without_clock(again) == without_clock(first)


def test_segments_come_from_held_out_episodes(here: Path) -> None:
    """What is drawn as the truth is what the held-out episode holds."""
    (number,) = json.loads((here / "plain/manifest.json").read_text())["data"]["held_out_episodes"]
    record = predict(here, "run=plain", "data=team", NO_GAINS, "segments=23", "out=p")
    assert (record["data"]["episodes"], record["data"]["steps"], record["data"]["which"]) == (1, 25, "held_out")
    assert record["fan"]["segment"]["episode"] == 0
    with_id = [2, 3, 6, 7]  # of both agents' position, velocity and one-hot
    assert record["units"]["obs"]["constant"] == with_id
    states = torch.tensor(record["fan"]["truth"]).T
    start = record["fan"]["segment"]["start"]
    truth = read_dataset(here / "team").trajectories[number].state[start : start + 4, record["fan"]["dims"]]
    torch.testing.assert_close(states, truth)


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "marks"), [(1, [1]), (5, [1, 5]), (20, [1, 5, 15, 20]), (21, [1, 5, 15, 20, 21])])
def test_errors_are_cumulated_at_the_papers_steps_and_the_horizon(horizon: int, marks: list[int], here: Path) -> None:
    words = ("run=plain", "data=team", f"horizon={horizon}", "segments=3", NO_GAINS, "out=p")
    record = predict(here, *words)
    assert record["marks"] == marks
    assert list(record["orders"]["any"]["reward"]["cumulative"]) == list(map(str, marks))


@pytest.mark.slow
def test_one_sample_has_no_spread(here: Path) -> None:
    record = predict(here, "run=plain", "data=team", "samples=1", NO_GAINS, "out=p")
    assert record["orders"]["any"]["spread"] is None


@pytest.mark.slow
def test_episodes_that_terminate_shorten_segments(here: Path) -> None:
    """toy/counter: some episodes end before the horizon does."""
    words = ("env=toy/counter", "env.episode_steps=12", "episodes=8", "num_workers=1", "out=counts")
    assert dima("collect", *words, cwd=here).code == 0
    assert dima("fit", "data=counts", *FIT, "held_out=0.5", "out=counter", cwd=here).code == 0
    record = predict(here, "run=counter", "data=counts", "horizon=6", "segments=15", "out=p")
    assert 0 < record["complete_segments"] < 15
    assert record["orders"]["any"]["termination"]["positives"] > 0
    assert "cannot go back" in record["action_gain"]["note"]


@pytest.mark.slow
def test_a_constant_reward_is_left_out(here: Path) -> None:
    for number in range(6):
        replace_episode(here / "team", number, lambda e: dataclasses.replace(e, reward=torch.full_like(e.reward, 0.5)))
    record = predict(here, "run=plain", "data=team", NO_GAINS, "out=p")
    assert record["orders"]["any"]["reward"] is None
    assert record["baselines_reward"] == {"persistence": None, "no_action": None, "linear": None}
    assert record["orders"]["any"]["obs"] is not None


def test_a_trained_run_is_measured_like_a_fitted_one(here: Path) -> None:
    assert dima("train", *SMALL, "env_steps=45", "trainer.checkpoint_every=15", "out=trained", cwd=here).code == 0
    record = predict(here, "run=trained", "data=team", "held_out=0.5", "out=p")
    assert (record["checkpoint"], record["data"]["episodes"]) == (45, 3)
    older = predict(here, "run=trained", "data=team", "held_out=0.5", "checkpoint=30", "out=older")
    assert older["checkpoint"] == 30
    assert older["orders"]["any"]["state"]["e"] != record["orders"]["any"]["state"]["e"]


@pytest.mark.slow
def test_an_older_checkpoint_and_the_default_folder(here: Path) -> None:
    assert cli.main(["predict", *ASKED, NO_GAINS, "run=plain", "data=team", "checkpoint=30"]) == 0
    (written,) = here.glob("plain/predict/30-*/prediction.json")
    assert read(written)["checkpoint"] == 30


def test_two_runs_are_compared_on_the_same_segments(here: Path) -> None:
    """A model and its copy make the same errors; one that was fitted longer does not."""
    shutil.copytree(here / "plain", here / "copy", symlinks=True)
    assert dima("fit", "data=team", *FIT, "updates=80", "out=longer", cwd=here).code == 0
    words = ["predict", *ASKED, NO_GAINS, "data=team", "runs=[plain,copy,longer]", "out=p"]
    assert cli.main(words) == 0
    records = {label: read(here / "p" / label / "prediction.json") for label in ("plain", "copy", "longer")}
    assert records["copy"] == records["plain"] | {"run": "copy", "runtime": records["copy"]["runtime"]}
    comparison = json.loads((here / "p/comparison.json").read_text())
    assert comparison["schema"] == 1
    assert comparison["runs"] == {label: {"run": label, "order": "any"} for label in records}
    differences = comparison["differences"]
    assert set(differences) == {"copy - plain", "longer - plain", "longer - copy"}
    for field in ("state", "obs", "reward"):
        assert differences["copy - plain"][field] == {m: {"mean": 0.0, "ci95": [0.0, 0.0]} for m in ("1", "3")}
        better = [records[label]["orders"]["any"][field]["cumulative"]["3"] for label in ("longer", "plain")]
        assert differences["longer - plain"][field]["3"]["mean"] == pytest.approx(better[0] - better[1])
        assert differences["longer - plain"][field]["3"]["mean"] != 0
    assert (here / "p/prediction.png").read_bytes()[:8] == PNG


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart(here: Path) -> None:
    shutil.copytree(here / "plain", here / "other/plain", symlinks=True)
    assert cli.main(["predict", *ASKED, NO_GAINS, "data=team", "runs=[plain,other/plain]", "out=p"]) == 0
    assert {entry.name for entry in (here / "p").iterdir()} >= {"here-plain", "other-plain"}


@pytest.mark.slow
def test_dima_can_be_sampled_otherwise(here: Path) -> None:
    record = predict(
        here, "run=dima", "data=toy", "num_denoising_steps=2", "solver=heun", "orders=[cycle]", NO_GAINS, "out=p"
    )
    assert record["options"]["num_denoising_steps"] == 2
    usual = predict(here, "run=dima", "data=toy", "orders=[cycle]", NO_GAINS, "out=usual")
    assert usual["options"]["num_denoising_steps"] != 2
    assert usual["orders"]["cycle"]["state"]["e"] != record["orders"]["cycle"]["state"]["e"]


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `dima predict WORDS` says; it is one line, exit code 2, and the folder stays as it is."""
    return refusal(capsys, folder, "predict", *ASKED, *words)


PLAIN = ("run=plain", "data=team")
DIMA = ("run=dima", "data=toy")

MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no run": (("data=team",), "run = None: expected a run folder, or several with runs="),
    "one and several": ((*PLAIN, "runs=[plain]"), "run = 'plain': expected a run folder, or several with runs="),
    "no runs": (("data=team", "runs=[]"), "runs = .*: expected at least one run folder"),
    "the same run twice": (("data=team", "runs=[plain,./plain]"), "runs = .*: expected different run folders"),
    "no data": (("run=plain",), "data has no value; name a dataset folder: data=DIR"),
    "a run that is not there": (("run=nowhere", "data=team"), "no run folder at 'nowhere'"),
    "a dataset as a run": (("run=team", "data=team"), "'team' is not a run folder"),
    "a run as a dataset": (("run=plain", "data=plain"), "no dataset at 'plain': it is a run folder"),
    "data that is not there": (("run=plain", "data=nowhere"), "no dataset at 'nowhere'"),
    "another task": (
        ("run=plain", "data=toy"),
        "toy is data of another task: env_id is",
    ),
    "one run of another task": (("runs=[plain,dima]", "data=team"), "another task: env_id .* that of run dima"),
    "a checkpoint that is not there": ((*PLAIN, "checkpoint=7"), r"no checkpoint at 7 .*there are \[30, 40\]"),
    "a checkpoint in words": ((*PLAIN, "checkpoint=newest"), "checkpoint = 'newest': expected latest or a number"),
    "an order that is none": ((*DIMA, "orders=[ascending,sideways]"), "sideways"),
    "an order of wrong length": ((*DIMA, "orders=[[1,2,1]]"), r"order = \[1, 2, 1\]: expected 4 agent numbers"),
    "an order of other agents": ((*DIMA, "orders=[[1,2,3,1]]"), r"order = \[1, 2, 3, 1\]: expected 4 agent numbers"),
    "an order twice": ((*DIMA, "orders=[cycle,cycle]"), "orders = .*: expected at least one order, none twice"),
    "no order": ((*DIMA, "orders=[]"), "orders = .*: expected at least one order"),
    "an order that is a number": ((*DIMA, "orders=[3]"), r"orders = \[3\] .*: expected a list of str or a list of"),
    "too far": (
        (*PLAIN, "horizon=26"),
        r"segments = 6: in 1 episode\(s\) .* 0 starts that 26 .*; ask for a shorter horizon",
    ),
    "too many": (
        (*PLAIN, "segments=24"),
        r"segments = 24: in 1 episode\(s\) .* 23 starts that 3 .*; ask for at most 23 segm",
    ),
    "no horizon": ((*PLAIN, "horizon=0"), "horizon = 0: expected at least 1"),
    "no sample": ((*PLAIN, "samples=0"), "samples = 0: expected at least 1"),
    "half a sample": ((*PLAIN, "samples=0.5"), r"samples = 0.5 \(float\): expected int"),
    "no change of actions": ((*PLAIN, "perturbation_std=0"), "perturbation_std = 0.0: expected above 0"),
    "occupied": ((*PLAIN, "out=team"), "out = 'team' holds other files"),
    "occupied by a run": ((*PLAIN, "out=plain"), "out = 'plain' holds another run"),
    "steps of a model without": ((*PLAIN, "num_denoising_steps=3"), "num_denoising_steps .*LinearModel has no such"),
    "a solver of a model without": ((*PLAIN, "solver=heun"), "num_denoising_steps and solver: LinearModel has no such"),
    "orders of a model without": ((*PLAIN, "orders=[cycle]"), "orders: LinearModel has no such choice"),
    "an unknown solver": ((*DIMA, "solver=houn"), "solver = 'houn'"),
    "no denoising step": ((*DIMA, "num_denoising_steps=0"), "num_denoising_steps"),
    "typo": ((*PLAIN, "horizn=3"), "unknown key 'horizn'; did you mean 'horizon'"),
    "wrong preset": ((*PLAIN, "preset=smoke"), "unknown key 'preset'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    monkeypatch.chdir(place)
    line = refused(place, capsys, *words)
    assert re.search(message, line), line


def nan_reward(data: Path) -> None:
    at = torch.tensor(4)
    replace_episode(data, 1, lambda e: dataclasses.replace(e, reward=e.reward.index_fill(0, at, torch.nan)))


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "NaN": (nan_reward, r"team/episodes/00001.npz: Trajectory: reward\[4\] is nan"),
    "shapes and spec disagree": (
        lambda data: edit_header(data, lambda header: header["spec"].update(state_dim=5)),
        r"team/episodes/00000.npz: Trajectory.state has shape \[26, 2\]",
    ),
    "a file cut": (lambda data: os.truncate(data / episode_name(2), 700), "team/episodes/00002.npz is cut off or dam"),
    "an episode missing": (lambda data: (data / episode_name(5)).unlink(), "team is cut off: episodes/00005.npz is"),
    "a list cut": (lambda data: edit_header(data, lambda header: header["episodes"].pop()), "lists 5 episodes, but"),
    "unfinished": (
        lambda data: edit_header(data, lambda header: header.update(complete=False)),
        "team is unfinished: 6 of 6 episodes; finish it: dima collect resume=team",
    ),
    "an observation that never varies": (
        lambda data: [
            replace_episode(data, number, lambda e: dataclasses.replace(e, obs=torch.ones_like(e.obs)))
            for number in range(6)
        ],
        "team: no observation varies",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_data_is_named_and_nothing_is_written(
    fault: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = SPOILT[fault]
    spoil(here / "team")
    line = refused(here, capsys, *PLAIN)
    assert re.search(message, line), line


def test_a_damaged_checkpoint_is_refused_and_an_older_one_offered(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = here / "plain/checkpoints/40/world_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    line = refused(here, capsys, *PLAIN)
    assert re.search("world_model.safetensors has .*: dima predict run=plain checkpoint=30$", line), line


def test_a_run_fitted_on_everything_needs_other_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dima("fit", "data=team", *FIT, "held_out=0", "out=all", cwd=here).code == 0
    line = refused(here, capsys, "run=all", "data=team")
    assert "all was fitted on all of team: measure it on another dataset" in line


def test_runs_that_hold_out_other_episodes_do_not_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dima("fit", "data=team", *FIT, "held_out=0.5", "out=half", cwd=here).code == 0
    line = refused(here, capsys, "runs=[plain,half]", "data=team")
    assert "plain and half hold out different episodes: fit them with the same held_out" in line


def test_a_model_that_predicts_nan_is_named_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = here / "plain/config.yaml"
    saved = config.read_text()
    config.write_text(saved.replace("world_model:\n", "world_model:\n  noise_std: .inf\n"))
    assert config.read_text() != saved
    line = refused(here, capsys, *PLAIN)
    assert re.search("LinearModel, step 1 of 3, .* is nan", line), line
