"""A run folder that somebody edited, cut or copied by halves: one clear line, exit code 2, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import SMALL, dima


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = dima("train", *SMALL, f"out={folder / 'run'}", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "run"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "is damaged"),
        ("", "holds no run's configuration"),
        ("seed: 3\n", "holds no run's configuration"),
        ("- 1\n- 2\n", "holds no run's configuration"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate run", "train resume"])
def test_a_damaged_configuration_is_named(finished: Path, command: str, text: str, words: str, tmp_path: Path) -> None:
    saved = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(text)
    name, key = command.split()
    try:
        outcome = dima(name, f"{key}={finished}", cwd=tmp_path)
    finally:
        (finished / "config.yaml").write_text(saved)
    assert outcome.code == 2
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert "config.yaml" in lines[0]


def test_a_checkpoint_that_does_not_fit_changes_nothing(finished: Path, tmp_path: Path) -> None:
    """Resuming with an edited configuration from an older checkpoint must not cut the metrics first."""
    saved = (finished / "config.yaml").read_text()
    before = (finished / "metrics.jsonl").read_text()
    older = sorted(int(entry.name) for entry in (finished / "checkpoints").iterdir() if entry.name.isdigit())[0]
    wider = saved.replace("hidden_dims:\n    - 16\n    - 16", "hidden_dims:\n    - 24\n    - 24")
    assert wider != saved
    (finished / "config.yaml").write_text(wider)
    try:
        outcome = dima("train", f"resume={finished}", f"checkpoint={older}", "env_steps=150", cwd=tmp_path)
    finally:
        (finished / "config.yaml").write_text(saved)
    assert outcome.code == 2
    assert "does not fit the model that config.yaml describes" in outcome.stderr
    assert (finished / "metrics.jsonl").read_text() == before
    assert (finished / "checkpoints" / "latest").resolve().name != str(older)


def test_other_files_are_not_called_a_run(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    outcome = dima("train", *SMALL, f"out={tmp_path / 'full'}", cwd=tmp_path)
    assert outcome.code == 2
    assert "holds other files; choose another folder, or empty it" in outcome.stderr
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_the_manifest_names_the_words_that_the_person_typed(finished: Path) -> None:
    command = json.loads((finished / "manifest.json").read_text())["command"]
    assert command[0] == "dima train"
    assert set(SMALL) <= set(command)  # groups come first, whatever the order typed
    assert not [word for word in command if word.startswith("hydra")]
