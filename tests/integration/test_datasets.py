"""`dima collect`: the same seed gives the same bytes, however often it was stopped, and nothing is ever overwritten."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dima.run import cli
from tests.support.commands import FIT, POINT_TEAM, SMALL, dima, start
from worldmodel.dataset import read_dataset
from worldmodel.episode_files import episode_name

COLLECT = (*POINT_TEAM, "env.episode_steps=10", "policy=ou", "episodes=6", "num_workers=1", "out=data")
SLOW_STEPS = "env.step_s=0.01"
"""Stretches an episode to a tenth of a second, so that a kill finds it at work."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose collection nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    outcome = dima("collect", *COLLECT, SLOW_STEPS, cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "data"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a policy at five ages."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = dima("train", *SMALL, "trainer.keep_checkpoints=9", "out=run", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "run"


def header(folder: Path, *but: str) -> dict[str, Any]:
    """dataset.json without the state of the code's checkout, which others may change meanwhile, and `but`."""
    content = json.loads((folder / "dataset.json").read_text())
    return {name: value for name, value in content.items() if name not in ("commit", "dirty", *but)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_same_dataset(folder: Path, expected: Path) -> None:
    """Every file of every episode is the same to the byte, and so is what dataset.json says."""
    got, wanted = contents(folder), contents(expected)
    assert got.keys() == wanted.keys()
    assert [name for name in got if got[name] != wanted[name] and name != "dataset.json"] == []
    assert header(folder) == header(expected)


def num_episodes(folder: Path) -> int:
    return len(list(folder.glob("episodes/*.npz")))


def test_a_dataset_says_what_is_in_it(unbroken: Path) -> None:
    dataset = read_dataset(unbroken)
    said = dataset.header
    assert (said["env_id"], said["policy"], said["seed"]) == ("test/point-team", "ou", 0)
    assert (said["num_episodes"], said["num_steps"], said["complete"]) == (6, 60, True)
    assert said["env"]["_target_"] == "tests.support.point_team.PointTeamConfig"
    assert [entry["steps"] for entry in said["episodes"]] == [10] * 6
    for entry, episode in zip(said["episodes"], dataset.trajectories, strict=True):
        assert entry["return"] == pytest.approx(float(episode.reward.sum()), rel=1e-6)
        assert entry["seed"] == episode.seed
    assert len({entry["seed"] for entry in said["episodes"]}) == 6
    assert len({entry["sha256"] for entry in said["episodes"]}) == 6


def test_workers_change_nothing(unbroken: Path, tmp_path: Path) -> None:
    outcome = dima("collect", *COLLECT, SLOW_STEPS, "num_workers=2", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    settings = header(tmp_path / "data")["settings"]
    assert settings == header(unbroken)["settings"] | {"num_workers": 2}
    assert header(tmp_path / "data", "settings") == header(unbroken, "settings")
    assert {**contents(tmp_path / "data"), "dataset.json": b""} == {**contents(unbroken), "dataset.json": b""}


def test_the_seed_decides(tmp_path: Path) -> None:
    for seed in (0, 1):
        assert dima("collect", *COLLECT, f"seed={seed}", f"out=data{seed}", cwd=tmp_path).code == 0
    first, other = (read_dataset(tmp_path / f"data{seed}") for seed in (0, 1))
    assert not {entry["sha256"] for entry in first.header["episodes"]} & {
        entry["sha256"] for entry in other.header["episodes"]
    }


def kill_when(folder: Path, arguments: tuple[str, ...], episodes: int, wait: float) -> None:
    """Start the command and kill it `wait` seconds after `episodes` episodes are there."""
    data = folder / "data"
    child = start("collect", *arguments, cwd=folder)
    while not (data / "dataset.json").exists() or num_episodes(data) < episodes:
        assert child.exitcode is None, (folder / "stderr").read_text()
        time.sleep(0.001)
    time.sleep(wait)
    child.kill()
    child.join()
    assert not header(data)["complete"], "the kill came too late"


def finish(folder: Path) -> None:
    outcome = dima("collect", "resume=data", "num_workers=1", cwd=folder)
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize("episodes", [0, pytest.param(2, marks=pytest.mark.slow), 4])
def test_killed_collections_go_on_to_the_same_bytes(unbroken: Path, tmp_path: Path, episodes: int) -> None:
    kill_when(tmp_path, (*COLLECT, SLOW_STEPS), episodes, wait=0.05)
    finish(tmp_path)
    assert_same_dataset(tmp_path / "data", unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_collections_killed_again_and_again(unbroken: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    kill_when(tmp_path, (*COLLECT, SLOW_STEPS), 0, wait=chance.uniform(0, 0.1))
    for episodes in (1, 2, 4):
        kill_when(tmp_path, ("resume=data", "num_workers=1"), episodes, wait=chance.uniform(0, 0.09))
    finish(tmp_path)
    assert_same_dataset(tmp_path / "data", unbroken)


@pytest.mark.slow
def test_a_collection_killed_with_its_workers(unbroken: Path, tmp_path: Path) -> None:
    kill_when(tmp_path, (*COLLECT, SLOW_STEPS, "num_workers=2"), 2, wait=0.03)
    finish(tmp_path)
    assert header(tmp_path / "data", "settings") == header(unbroken, "settings")
    assert {**contents(tmp_path / "data"), "dataset.json": b""} == {**contents(unbroken), "dataset.json": b""}


@pytest.fixture
def unfinished(unbroken: Path, tmp_path: Path) -> Path:
    """The same dataset as a kill in the fifth episode would leave it."""
    data = tmp_path / "data"
    shutil.copytree(unbroken, data)
    said = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**said, "complete": False, "num_steps": 0, "episodes": []}))
    for number in (4, 5):
        (data / episode_name(number)).unlink()
    (data / "episodes/.00004.npz.writing").write_bytes(b"PK")
    return data


def test_half_an_episode_is_played_again(unfinished: Path, unbroken: Path) -> None:
    finish(unfinished.parent)
    assert_same_dataset(unfinished, unbroken)


def test_a_damaged_episode_is_named_on_resuming(unfinished: Path, unbroken: Path) -> None:
    file = unfinished / episode_name(1)
    file.write_bytes(file.read_bytes()[:-9])
    outcome = dima("collect", "resume=data", "num_workers=1", cwd=unfinished.parent)
    assert outcome.code == 2
    assert "data/episodes/00001.npz is cut off or damaged" in outcome.stderr
    file.unlink()
    finish(unfinished.parent)
    assert_same_dataset(unfinished, unbroken)


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `dima collect WORDS` in `folder` says; it is one line, exit code 2, and the folder stays as it is."""
    monkeypatch.chdir(folder)
    before, places = contents(folder), sorted(folder.rglob("*"))
    assert cli.main(["collect", *words]) == 2
    assert contents(folder) == before
    assert sorted(folder.rglob("*")) == places, "something was left half-written"
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_nothing_is_overwritten(
    unfinished: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unfinished.parent
    shutil.copytree(unbroken, folder / "whole")
    (folder / "other").mkdir()
    (folder / "other/letter.txt").write_text("dear")
    (folder / "file").write_text("")
    for out, message in {
        "whole": "out = 'whole' holds another dataset; choose another folder$",
        "data": "out = 'data' holds another dataset; .*or finish this one: dima collect resume=data$",
        "other": "out = 'other' holds other files; choose another folder, or empty it",
        "file": "out = 'file' holds other files",
        "file/below": "out = 'file/below' cannot be made",
    }.items():
        assert re.search(message, refused(folder, monkeypatch, capsys, *COLLECT, f"out={out}"))


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown policy": (
        (*COLLECT, "policy=rnadom"),
        "policy = 'rnadom': expected random, ou, scripted, run:DIR or mixture",
    ),
    "no run": ((*COLLECT, "policy=run:nowhere"), "no run folder at 'nowhere'"),
    "no run to mix": ((*COLLECT, "policy=mixture", "run=nowhere"), "no run folder at 'nowhere'"),
    "a run of no use": ((*COLLECT, "run=nowhere"), "run = 'nowhere': expected null unless policy=mixture"),
    "no episode": ((*COLLECT, "episodes=0"), "episodes = 0: expected at least 1"),
    "wrong type": ((*COLLECT, "episodes=many"), r"episodes = 'many' \(str\): expected int"),
    "no worker": ((*COLLECT, "num_workers=0"), "num_workers = 0: expected null or at least 1"),
    "typo": ((*COLLECT, "episode=3"), "unknown key 'episode'; did you mean 'episodes'"),
    "typo inside": ((*COLLECT, "noise.sdt=[1,2]"), "unknown key 'noise.sdt'; did you mean 'noise.std'"),
    "negative share": ((*COLLECT, "mixture.ou=-1"), "ou = -1.0: expected at least 0"),
    "unknown task": (("env=toy/linaer",), "did you mean 'toy/linear'"),
    "NaN": ((*COLLECT, "env.fault=not_finite"), r"state\[0\] has the value nan"),
    "NaN at once": ((*COLLECT, "env.fault=not_finite", "env.fault_at=0"), r"after reset.*state\[0\] has the value nan"),
    "wrong shape": ((*COLLECT, "env.fault=shape"), r"obs has shape \[2, 3\]"),
    "nothing to resume": (("resume=nowhere",), "no dataset at 'nowhere': it has no dataset.json"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    line = refused(tmp_path, monkeypatch, capsys, *words)
    assert line.startswith("dima collect: ")
    assert re.search(message, line), line


def test_what_cannot_be_resumed(
    unfinished: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unfinished.parent
    shutil.copytree(unbroken, folder / "whole")
    for words, message in {
        ("resume=whole",): "whole is finished: it holds all of its 6 episodes",
        ("resume=data", "episodes=9"): "episodes=9: with resume=DIR only num_workers may change",
        ("resume=data", "policy=random"): "policy=random: with resume=DIR only num_workers may change",
    }.items():
        assert message in refused(folder, monkeypatch, capsys, *words)


def test_two_cannot_collect_into_one_folder(tmp_path: Path) -> None:
    child = start("collect", *COLLECT, "env.step_s=0.05", cwd=tmp_path)
    while not num_episodes(tmp_path / "data"):
        assert child.exitcode is None
        time.sleep(0.005)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outcome = dima("collect", f"resume={tmp_path / 'data'}", cwd=elsewhere)
    assert child.exitcode is None, "the first one was through before the second began"
    child.kill()
    child.join()
    assert outcome.code == 2
    assert "is in use by another process" in outcome.stderr


def test_a_fault_on_the_way_keeps_what_is_whole(tmp_path: Path) -> None:
    """Every fifth seed is faulty: what was played before is kept, and resuming meets the same fault."""
    faulty = ("env.fault=not_finite", "env.fault_every=5", "episodes=12")
    outcome = dima("collect", *COLLECT, *faulty, cwd=tmp_path)
    assert outcome.code == 2
    (line,) = outcome.stderr.splitlines()
    seed = re.search(r"of the episode with seed (\d+): state\[0\] has the value nan", line)
    assert seed, line
    assert int(seed.group(1)) % 5 == 0
    assert line.endswith("the whole episodes are kept; go on with: dima collect resume=data")
    kept = num_episodes(tmp_path / "data")
    assert 0 < kept < 12
    again = dima("collect", "resume=data", "num_workers=1", cwd=tmp_path)
    assert again.code == 2
    assert seed.group(0) in again.stderr
    assert num_episodes(tmp_path / "data") == kept


def test_ctrl_c_says_how_to_go_on(unbroken: Path, tmp_path: Path) -> None:
    child = start("collect", *COLLECT, SLOW_STEPS, cwd=tmp_path)
    while not num_episodes(tmp_path / "data"):
        assert child.exitcode is None
        time.sleep(0.001)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 130
    assert "go on with: dima collect resume=data" in (tmp_path / "stdout").read_text()
    assert (tmp_path / "stderr").read_text() == ""
    finish(tmp_path)
    assert_same_dataset(tmp_path / "data", unbroken)


def test_the_newest_policy_of_a_run_acts(trained: Path, tmp_path: Path) -> None:
    arguments = (*POINT_TEAM, f"policy=run:{trained}", "episodes=2", "num_workers=1")
    for out in ("data", "again"):
        outcome = dima("collect", *arguments, f"out={out}", cwd=tmp_path)
        assert outcome.code == 0, outcome.stderr
    dataset, again = read_dataset(tmp_path / "data"), read_dataset(tmp_path / "again")
    assert dataset.behaviours == ("policy@00000120",) * 2
    assert dataset.fingerprint == again.fingerprint
    assert dima("collect", *POINT_TEAM, "episodes=2", "num_workers=1", "out=random", cwd=tmp_path).code == 0
    assert read_dataset(tmp_path / "random").fingerprint != dataset.fingerprint


def test_a_mixture_holds_every_age_of_a_run(trained: Path, tmp_path: Path) -> None:
    arguments = (*POINT_TEAM, "policy=mixture", f"run={trained}", "episodes=20", "num_workers=1", "out=data")
    outcome = dima("collect", *arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    dataset = read_dataset(tmp_path / "data")
    ages = {f"policy@{step:08d}": 2 for step in (0, 30, 60, 90, 120)}
    assert Counter(dataset.behaviours) == {"random": 4, "ou": 6, **ages}
    actions = [episode.action.numpy() for episode in dataset.trajectories]
    pairs = [(a, b) for i, a in enumerate(actions) for b in actions[:i]]
    assert not any(np.array_equal(a, b) for a, b in pairs)
    assert "policy@00000030 (2 episodes)" in outcome.stdout


def test_a_policy_that_cannot_act_here_is_refused(
    trained: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of another task, one without a policy, one with a damaged checkpoint: nothing is played or written."""
    mixture = ("policy=mixture", "episodes=20", "num_workers=1", "out=data")
    line = refused(tmp_path, monkeypatch, capsys, "env=toy/linear", *mixture, f"run={trained}")
    assert f"the policy of {trained} was trained on another task: env_id is 'test/point-team' there, 'toy/lin" in line
    assert dima("fit", f"data={unbroken}", *FIT, "out=fit", cwd=tmp_path).code == 0
    line = refused(tmp_path, monkeypatch, capsys, *POINT_TEAM, *mixture, "run=fit")
    assert "fit was fitted offline: it holds no policy" in line
    shutil.copytree(trained, tmp_path / "damaged", symlinks=True)
    (tmp_path / "damaged/checkpoints/30/policy.safetensors").write_bytes(b"")
    line = refused(tmp_path, monkeypatch, capsys, *POINT_TEAM, *mixture, "run=damaged")
    assert re.search("damaged/checkpoints/30 is damaged: policy.safetensors has 0 bytes, .*; remove it", line), line
