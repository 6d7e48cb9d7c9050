"""The run folder: config.yaml, manifest.json, metrics.jsonl, scores.json and checkpoints/, and how each is written.

What a run needs to be repeated is in its folder. Files that other tools read are replaced as a whole, never half
written. Knows nothing of training.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from dima.run.checkpoint import CheckpointStore
from worldmodel.atomic import write_whole

_CONFIG, _MANIFEST, _METRICS, _SCORES = "config.yaml", "manifest.json", "metrics.jsonl", "scores.json"


class RunFolderError(ValueError):
    """A run folder that cannot be used: occupied, missing or not one; says what to do."""


class RunFolder:
    """One run's folder and its files by name."""

    def __init__(self, path: Path) -> None:
        """Name the folder at `path`; nothing is created or read."""
        self.path = path
        self._made: list[Path] = []

    @classmethod
    def create(cls, path: Path, *, resumable: bool = True) -> RunFolder:
        """A new run folder at `path`; `resumable`: whether the command could go on in one that is there.

        Raises:
            RunFolderError: when `path` holds anything already or cannot be made.
        """
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            if (path / _CONFIG).exists():
                instead = "another run; choose another folder" + (f", or go on with resume={path}" if resumable else "")
            else:
                instead = "other files; choose another folder, or empty it"
            raise RunFolderError(f"out = {str(path)!r} holds {instead}")
        folder = cls(path)
        folder._made = [place for place in (path, *path.parents) if not place.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"out = {str(path)!r} cannot be made: {error}") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The existing run folder at `path`.

        Raises:
            RunFolderError: when there is none.
        """
        if not path.is_dir():
            raise RunFolderError(f"no run folder at {str(path)!r}")
        if not (path / _CONFIG).is_file():
            raise RunFolderError(f"{str(path)!r} is not a run folder: it has no {_CONFIG}")
        return cls(path)

    def lock(self) -> None:
        """Hold the folder until this process ends, however it ends.

        Raises:
            RunFolderError: when another process holds it.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RunFolderError(f"run folder {str(self.path)!r} is in use by another process") from error
        except OSError:  # a file system without locks
            os.close(descriptor)

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / _CONFIG

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / _METRICS

    def checkpoints(self, keep: int = 2) -> CheckpointStore:
        """The store under `checkpoints/`."""
        return CheckpointStore(self.path / "checkpoints", keep)

    def write_config(self, text: str) -> None:
        """Write config.yaml."""
        write_whole(self.config_file, text)

    def read_manifest(self) -> dict[str, Any]:
        """What manifest.json says; empty before it is first written."""
        return _read_json(self.path / _MANIFEST, {})

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace manifest.json."""
        write_whole(self.path / _MANIFEST, json.dumps(manifest, indent=2) + "\n")

    def read_scores(self) -> dict[str, Any]:
        """What scores.json says; empty before it is first written."""
        return _read_json(self.path / _SCORES, {})

    def write_scores(self, scores: dict[str, Any]) -> None:
        """Replace scores.json."""
        write_whole(self.path / _SCORES, json.dumps(scores, indent=1) + "\n")

    def cut_after(self, step: int, counted: str = "env_steps") -> None:
        """Drop metrics and scores measured after `step`: a run that goes on from there writes them again.

        `counted`: the figure in each row that tells how far the run was. With `step` -1 everything goes. A half-written
        last line, left by a crash, goes too.
        """
        if self.metrics_file.exists():
            rows = (_parse_row(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines())
            kept = [json.dumps(row) for row in rows if row is not None and row[counted] <= step]
            write_whole(self.metrics_file, "".join(line + "\n" for line in kept))
        scores = self.read_scores()
        if scores:
            scores["evaluations"] = [e for e in scores["evaluations"] if e[counted] <= step]
            self.write_scores(scores)

    def remove(self) -> None:
        """Undo `create`, for a run that never began: delete what the folder holds and every folder made for it."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for place in self._made:
            if not any(place.iterdir()):
                place.rmdir()


def default_path(*names: str) -> Path:
    """A path `runs/NAMES...-TIME` under the current directory at which there is nothing yet."""
    return new_path(Path("runs").joinpath(*names[:-1]), names[-1])


def new_path(parent: Path, name: str) -> Path:
    """`parent/NAME-TIME`, numbered where that is taken."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = parent / f"{name}-{now}", 2
    while path.exists():
        path, number = parent / f"{name}-{now}-{number}", number + 1
    return path


def _read_json(path: Path, default: dict[str, Any]) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _parse_row(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
