"""Run folders: never over another run, cut exactly, held by one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dima.run.folder import RunFolder, RunFolderError, new_path


def make_run(path: Path) -> RunFolder:
    folder = RunFolder.create(path)
    folder.write_config("seed: 0\n")
    return folder


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="holds another run; choose another folder, or go on with resume="):
        RunFolder.create(tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("x")
    with pytest.raises(RunFolderError, match="holds other files"):
        RunFolder.create(tmp_path / "notes")
    with pytest.raises(RunFolderError, match="holds other files"):
        RunFolder.create(tmp_path / "notes" / "todo.txt")
    with pytest.raises(RunFolderError, match="cannot be made"):
        RunFolder.create(tmp_path / "notes" / "todo.txt" / "run")


def test_opening_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder at"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no config.yaml"):
        RunFolder.open(tmp_path)


def test_removing_undoes_what_create_made_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other").mkdir()
    folder = make_run(tmp_path / "runs" / "env" / "model" / "seed0")
    folder.checkpoints().save(0, {}, {})
    folder.remove()
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["other"]


def test_cutting_keeps_what_was_measured_up_to_the_checkpoint(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    lines = [json.dumps({"env_steps": steps, "loss": 0.1 * steps}) for steps in (0, 10, 20, 30)]
    folder.metrics_file.write_text("\n".join(lines) + '\n{"env_steps": 4')
    evaluations = [{"env_steps": steps, "returns": [1.5]} for steps in (0, 20, 30)]
    folder.write_scores({"env": "e", "evaluations": evaluations})
    folder.cut_after(20)
    assert folder.metrics_file.read_text().splitlines() == lines[:3]
    assert folder.read_scores() == {"env": "e", "evaluations": evaluations[:2]}
    folder.cut_after(-1)
    assert folder.metrics_file.read_text() == ""
    assert folder.read_scores()["evaluations"] == []


def test_new_paths_are_new(tmp_path: Path) -> None:
    first = new_path(tmp_path, "seed0")
    first.mkdir()
    second = new_path(tmp_path, "seed0")
    assert second != first
    assert not second.exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.lock()
    with pytest.raises(RunFolderError, match="is in use by another process"):
        RunFolder.open(folder.path).lock()
    other = make_run(tmp_path / "other")
    other.lock()
