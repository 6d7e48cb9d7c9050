"""Metrics: one whole JSON object a line always, and mirrors that may break without anybody noticing but a warning."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dima.run.tracking import Row, Tracker, TrackingConfig, open_tracker

ROWS: list[Row] = [{"env_steps": 10 * i, "updates": i, "critic/loss": 0.1 * i} for i in range(3)]


class Recorder:
    """Keeps what it is given, and breaks at one row."""

    def __init__(self, break_at: int | None = None) -> None:
        self.rows: list[Row] = []
        self.break_at = break_at
        self.is_closed = False

    def write(self, row: Row) -> None:
        if len(self.rows) == self.break_at:
            raise ConnectionError("the server\nis gone")
        self.rows.append(row)

    def close(self) -> None:
        self.is_closed = True


def written(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def config(**changes: object) -> TrackingConfig:
    settings = {"tensorboard": False, "wandb": "off", "wandb_project": "p", "wandb_entity": None, "wandb_timeout_s": 20}
    return TrackingConfig(**{**settings, **changes})  # type: ignore[arg-type]


def test_rows_are_appended_and_mirrored(tmp_path: Path) -> None:
    path, mirror = tmp_path / "metrics.jsonl", Recorder()
    path.write_text('{"env_steps": -1}\n')
    tracker = Tracker(path, {"mirror": lambda: mirror}, pytest.fail)
    for number, row in enumerate(ROWS, start=1):
        tracker.write(row)
        assert len(written(path)) == number + 1, "a row is on the disk as soon as it is written"
    tracker.close()
    assert written(path)[1:] == mirror.rows == ROWS
    assert mirror.is_closed


def test_a_broken_mirror_warns_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    warnings: list[str] = []
    broken, whole = Recorder(break_at=1), Recorder()
    tracker = Tracker(tmp_path / "m", {"broken": lambda: broken, "whole": lambda: whole}, warnings.append)
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    assert written(tmp_path / "m") == whole.rows == ROWS
    assert warnings == ["broken is off for the rest of this run (the server is gone); metrics.jsonl goes on"]


def test_a_mirror_that_does_not_open_is_left_out(tmp_path: Path) -> None:
    def refuse() -> Recorder:
        raise TimeoutError("no answer")

    warnings: list[str] = []
    tracker = Tracker(tmp_path / "m", {"mirror": refuse}, warnings.append)
    tracker.write(ROWS[0])
    tracker.close()
    assert written(tmp_path / "m") == ROWS[:1]
    assert len(warnings) == 1


def test_a_missing_package_is_an_error_not_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a mirror wants to know at once that it cannot be."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError):
        open_tracker(config(tensorboard=True), tmp_path, {}, pytest.fail)


def test_nothing_is_imported_for_mirrors_that_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    open_tracker(config(), tmp_path, {}, pytest.fail).close()
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name in ("tensorboard", "wandb")]


@pytest.mark.slow
def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = open_tracker(config(tensorboard=True), tmp_path, {}, pytest.fail)
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(event.step, pytest.approx(event.value)) for event in events.Scalars("critic/loss")]
    assert losses == [(row["env_steps"], row["critic/loss"]) for row in ROWS]


@pytest.mark.slow
def test_wandb_offline_keeps_its_copy_in_the_folder(tmp_path: Path) -> None:
    tracker = open_tracker(config(wandb="offline"), tmp_path, {"seed": 1}, pytest.fail)
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    copies = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(copies) == 1
    assert b"critic/loss" in copies[0].read_bytes()


@pytest.mark.slow
def test_a_dead_wandb_server_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on port 9."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    warnings: list[str] = []
    tracker = open_tracker(config(wandb="online", wandb_timeout_s=3), tmp_path, {}, warnings.append)
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    assert written(tmp_path / "metrics.jsonl") == ROWS
    assert len(warnings) == 1
    assert warnings[0].startswith("wandb is off for the rest of this run")
