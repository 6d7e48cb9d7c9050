"""The maps of SMAX as they are chosen, found and started; what is missing is said in one line."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dima.run.cli import main
from tests.support.skirmish_served import smax_config
from worldmodel.config import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs" / "env" / "smax"


@pytest.mark.parametrize("path", [path for path in CONFIGS.glob("*.yaml") if path.stem != "base"], ids=lambda p: p.stem)
def test_a_task_s_name_is_its_file_s(path: Path) -> None:
    assert smax_config(map=yaml.safe_load(path.read_text())["map"]).env_id == f"smax/{path.stem}"


def test_other_ways_of_hiding_have_other_names() -> None:
    assert smax_config(hide="none").env_id == "smax/3m-nothing-hidden"
    assert smax_config(hide="enemy_types_and_health").env_id == "smax/3m-enemies-hidden"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"map": "../3m"}, "map = '../3m': expected a name like 3m"),
        ({"episode_steps": 0}, "episode_steps = 0: expected at least 1"),
        ({"hide": "all"}, "expected one of none, types_and_health, enemy_types_and_health"),
        ({"batching": "pmap"}, "expected one of map, vmap"),
        ({"timeout_s": 0}, "timeout_s = 0.0: expected a number above 0"),
        ({"start_timeout_s": -1}, "start_timeout_s = -1.0: expected a number above 0"),
    ],
)
def test_values_that_cannot_be_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        smax_config(**changes)


def test_the_worker_is_told_what_to_build() -> None:
    command = smax_config(python=sys.executable, episode_steps=60).command(16)
    assert command[0] == sys.executable
    told = dict(zip(command[2::2], command[3::2], strict=True))
    assert (told["--serve"], told["--num-worlds"]) == ("smax:3m", "16")
    settings = {"batching": "map", "max_steps": 60, "see_enemy_actions": True, "walls_cause_death": True}
    assert json.loads(told["--with"]) == settings


def test_without_an_interpreter_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DIMA_SMAX_PYTHON", raising=False)
    monkeypatch.delenv("DIMA_DEBUG", raising=False)
    assert main(["train", "env=smax/3m"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("smax/3m", "jaxmarl", "DIMA_SMAX_PYTHON", "python -m venv .smax", "docs/smac.md"):
        assert part in line


def test_an_interpreter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMA_SMAX_PYTHON", "/nowhere/python")
    with pytest.raises(ConfigError, match="smax/3m: there is no interpreter /nowhere/python"):
        smax_config().build()


def test_an_interpreter_without_jaxmarl_is_named() -> None:
    with pytest.raises(ConfigError, match=r"has no package 'jax(marl)?': python -m venv .smax && .*docs/smac.md"):
        smax_config(python=sys.executable).build()


def test_it_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(smax_config())) == smax_config()
