"""What the author of a world model says of it on the command line: nested options, presets, a search path, mistakes."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dima.run import cli
from tests.support.commands import SMALL, refusal
from tests.support.linear_model import LinearModel, LinearModelConfig
from worldmodel.config import OptimConfig
from worldmodel.types import EnvSpec

OWN = "world_model._target_=tests.integration.test_own_model.OwnConfig"
RUN = tuple(word for word in SMALL if not word.startswith(("world_model", "env_steps")))
BRIEF = (*RUN, "env_steps=15", "out=run")


@dataclasses.dataclass(frozen=True)
class OwnConfig(LinearModelConfig):
    """A config with another one in it."""

    width: int = 8
    optim: OptimConfig = OptimConfig(1e-3, 0.0, 10.0, 64)  # noqa: RUF009


@dataclasses.dataclass(frozen=True)
class PartlessConfig(LinearModelConfig):
    """Of a model that forgot its parts."""

    def build(self, spec: EnvSpec) -> LinearModel:
        model = super().build(spec)
        model.parts = dict  # type: ignore[method-assign]
        return model


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def yaml(tmp_path: Path) -> str:
    """The word that names a folder with `own.yaml`, which lists `width` only, and its preset for smoke."""
    (tmp_path / "mine/world_model").mkdir(parents=True)
    (tmp_path / "mine/world_model_preset/own").mkdir(parents=True)
    (tmp_path / "mine/world_model/own.yaml").write_text(
        f"{OWN.replace('world_model.', '').replace('=', ': ')}\nwidth: 9\n"
    )
    (tmp_path / "mine/world_model_preset/own/smoke.yaml").write_text("# @package world_model\nwidth: 10\n")
    return f"hydra.searchpath=[file://{tmp_path}/mine]"


def saved(tmp_path: Path) -> str:
    return (tmp_path / "run/config.yaml").read_text()


def test_an_option_of_a_nested_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", OWN, *BRIEF, "world_model.optim.learning_rate=0.01"]) == 0
    assert "optim:\n    learning_rate: 0.01\n" in saved(tmp_path)
    capsys.readouterr()
    line = refusal(capsys, tmp_path, "train", OWN, *RUN, "world_model.optim.learning_rate=-1")
    assert "OptimConfig.learning_rate = -1.0: expected a number above 0" in line


def test_a_preset_says_where_its_values_belong(yaml: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", yaml, "world_model=own", *BRIEF]) == 0
    assert "width: 10\n" in saved(tmp_path)
    (tmp_path / "mine/world_model_preset/own/smoke.yaml").write_text("width: 10\n")
    capsys.readouterr()
    line = refusal(capsys, tmp_path, "train", yaml, "world_model=own", *RUN)
    assert line.endswith(
        "the preset in world_model_preset/ that sets width: its first line must be: # @package world_model"
    )


def test_a_yaml_need_not_list_every_field(yaml: str, tmp_path: Path) -> None:
    words = ("world_model.noise_std=0.5", "world_model.optim.learning_rate=0.01")
    assert cli.main(["train", yaml, "world_model=own", *BRIEF, *words]) == 0
    assert "optim:\n    learning_rate: 0.01\n" in saved(tmp_path)
    assert "noise_std: 0.5\n" in saved(tmp_path)


def test_a_resumed_run_says_that_it_keeps_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", OWN, *BRIEF]) == 0
    capsys.readouterr()
    line = refusal(capsys, tmp_path, "train", "resume=run", "world_model.width=32")
    assert line.startswith("dima train: world_model.width=32: with resume=RUN only env_steps, device")
    assert "unknown key 'trainer.updatez'" in refusal(capsys, tmp_path, "train", "resume=run", "trainer.updatez=3")


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "typo": ((OWN, "world_model.wdith=3"), "in world_model: unknown key 'wdith'; did you mean 'width'?"),
    "nested typo": ((OWN, "world_model.optim.rate=3"), r"OwnConfig.optim: unknown key 'rate' \(keys: learning_rate"),
    "typo with a file": (
        ("YAML", "world_model=own", "world_model.noise_sdt=3"),
        "unknown key 'world_model.noise_sdt'; did you mean 'world_model.noise_std'?",
    ),
    "no parts": (
        ("world_model._target_=tests.integration.test_own_model.PartlessConfig",),
        r"LinearModel.parts\(\) is empty, so nothing would train its \d+ parameters",
    ),
    "no search path": (
        ("world_model=own",),
        r"no such choice as 'own' \(world_model: custom, dima,.*name its folder: 'hydra.searchpath=\[file:///FOLDER\]'",
    ),
    "another name": (("YAML", "world_model=owm"), "did you mean 'own'?"),
    "no folder": (("hydra.searchpath=[file:///nowhere]", "world_model=own"), "searchpath: there is no folder /nowhere"),
    "class only": (("world_model._target_=OwnConfig",), "_target_ = 'OwnConfig': expected package.module.Class"),
    "nothing": (("world_model._target_=",), "_target_ = '': expected package.module.Class"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_say_what_to_write(
    mistake: str, yaml: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    line = refusal(capsys, tmp_path, "train", *RUN, *(yaml if word == "YAML" else word for word in words))
    assert re.search(message, line), line


class Faulty(LinearModel):
    def view(self, state):  # type: ignore[no-untyped-def]
        raise KeyError("no such view")


@dataclasses.dataclass(frozen=True)
class FaultyConfig(LinearModelConfig):
    """Of a model with a fault in it."""

    in_build: bool = False

    def build(self, spec: EnvSpec) -> LinearModel:
        return self.nothing if self.in_build else Faulty(self, spec)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("in_build", "kind"), [(False, "Faulty"), (True, "FaultyConfig")])
def test_a_fault_in_ones_own_model_is_a_traceback_and_a_word_on_check_model(in_build: bool, kind: str) -> None:
    words = f"world_model._target_={__name__}.FaultyConfig world_model.in_build={in_build}"
    with pytest.raises((KeyError, AttributeError)) as caught:
        cli.main(["train", *words.split(), *BRIEF])
    assert caught.value.__notes__ == [
        f"raised in {__name__}.{kind}; what a model has to keep: dima check-model {words}"
    ]


def test_a_reader_that_has_enough_is_no_mistake() -> None:
    command = f"{sys.executable} -m dima.run.cli fit --help | true; exit ${{PIPESTATUS[0]}}"
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (141, "")  # as the shell calls what ended so
