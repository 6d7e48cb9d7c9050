"""`policy=scripted` of `dima collect` and `dima play`, and what is told where there is no script."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dima.run import cli
from tests.support.commands import POINT_TEAM, refusal
from worldmodel.dataset import read_dataset

SCISSORS = ("env=bidexhands-mujoco/scissors", "env.physics=fast")

pytestmark = pytest.mark.mujoco


def test_a_dataset_of_scripted_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["collect", *SCISSORS, "policy=scripted", "episodes=2", "num_workers=1"]
    assert cli.main([*arguments, "out=one"]) == 0
    header = json.loads((tmp_path / "one/dataset.json").read_text())
    assert header["policy"] == "scripted"
    assert [episode["behaviour"] for episode in header["episodes"]] == ["scripted"] * 2
    returns = [episode["return"] for episode in header["episodes"]]
    assert min(returns) > 400  # doing nothing gives -48
    assert returns[0] != returns[1], "noise makes episodes differ that begin alike"
    assert len(read_dataset(tmp_path / "one").trajectories) == 2


@pytest.mark.slow
def test_a_film_of_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.chdir(tmp_path)
    small = ("env.render_width=64", "env.render_height=48")
    assert cli.main(["play", *SCISSORS, *small, "policy=scripted", "fps=60", "out=film"]) == 0
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "film/scripted-seed0.mp4"))
    assert (frames, seconds) == (151, pytest.approx(2.5, abs=0.05))


MISTAKES = {
    "collect without a script": (
        ("collect", *POINT_TEAM, "policy=scripted", "episodes=1"),
        "environment test/point-team has no scripted policy; choose another, e.g. policy=random",
    ),
    "play without a script": (
        ("play", *POINT_TEAM, "policy=scripted"),
        "environment test/point-team has no scripted policy",
    ),
    "play without an environment": (("play", "policy=scripted"), "env has no value; give one with policy=scripted"),
    "play a run elsewhere": (("play", "run=RUN", *SCISSORS), "env: a run is played in its own environment"),
    "play a script beside a run": (("play", "run=RUN", *SCISSORS, "policy=scripted"), "run = 'RUN': of no use"),
    "play what there is not": (("play", "run=RUN", "policy=best"), "'best': expected run or scripted"),
    "play nothing": (("play",), "run has no value; give one: run=VALUE"),
    "impossible noise": (
        ("collect", *SCISSORS, "policy=scripted", "noise.scripted=[0.2,0.1]"),
        r"scripted = \(0.2, 0.1\): expected \[low, high\] with 0 <= low <= high",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, tmp_path, *arguments)
    assert re.search(message, line), line
    assert list(tmp_path.iterdir()) == []
