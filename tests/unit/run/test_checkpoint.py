"""Checkpoints: whole or not there, checked byte by byte, never able to run code."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dima.run import checkpoint as checkpoint_module
from dima.run.checkpoint import CheckpointError, CheckpointStore, verify


def components(value: float) -> dict[str, Any]:
    return {"world_model": {"w": torch.full((4, 4), value), "n": 3}, "random": {"state": torch.arange(5)}}


def save(store: CheckpointStore, env_steps: int) -> Path:
    return store.save(env_steps, components(float(env_steps)), {"rounds": env_steps // 10})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Two whole checkpoints, at 10 and 20 env steps."""
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    save(store, 10)
    save(store, 20)
    return store


def test_what_was_saved_comes_back(store: CheckpointStore) -> None:
    loaded = store.load()
    assert (loaded.env_steps, loaded.counters) == (20, {"rounds": 2})
    assert torch.equal(loaded.components["world_model"]["w"], torch.full((4, 4), 20.0))
    assert loaded.components["world_model"]["n"] == 3
    assert store.load(10).components["world_model"]["w"][0, 0] == 10
    assert set(store.load(only=["random"]).components) == {"random"}


def test_the_newest_are_kept_and_latest_points_at_the_last(store: CheckpointStore) -> None:
    for step in (30, 40):
        save(store, step)
        assert (store.directory / "latest").resolve() == store.path(step)
    assert store.steps() == [30, 40]
    assert sorted(entry.name for entry in store.directory.iterdir()) == ["30", "40", "latest"]


def test_at_least_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step in (1, 2, 3):
        save(store, step)
    assert store.steps() == [2, 3]


def test_whoever_may_read_the_skeleton_may_read_the_weights(store: CheckpointStore) -> None:
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in store.path(20).iterdir()}
    assert set(modes.values()) == {modes["manifest.json"]}


def test_a_file_system_without_links_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "symlink", refuse)
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2):
        save(store, step)
    assert store.load().env_steps == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]


def truncate(path: Path) -> None:
    data = (path / "world_model.safetensors").read_bytes()
    (path / "world_model.safetensors").write_bytes(data[: len(data) // 2])


def alter(path: Path) -> None:
    data = bytearray((path / "world_model.safetensors").read_bytes())
    data[-3] ^= 1
    (path / "world_model.safetensors").write_bytes(bytes(data))


def alter_skeleton(path: Path) -> None:
    text = (path / "world_model.json").read_text()
    (path / "world_model.json").write_text(text.replace("3", "4"))


def remove(path: Path) -> None:
    (path / "random.safetensors").unlink()


def alter_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"rounds": 2', '"rounds": 3'))


def truncate_manifest(path: Path) -> None:
    (path / "manifest.json").write_text((path / "manifest.json").read_text()[:40])


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


DAMAGES = [
    (truncate, r"world_model.safetensors has \d+ bytes, expected \d+"),
    (alter, "world_model.safetensors does not match its checksum"),
    (alter_skeleton, "world_model.json does not match its checksum"),
    (remove, "random.safetensors is missing"),
    (alter_manifest, "manifest.json does not match its checksum"),
    (truncate_manifest, "manifest.json cannot be read"),
    (remove_manifest, "manifest.json is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damage_is_named_and_the_one_before_is_found(store: CheckpointStore, damage: Any, message: str) -> None:
    damage(store.path(20))
    with pytest.raises(CheckpointError, match=message) as caught:
        store.load()
    assert str(store.path(20)) in str(caught.value)
    assert store.newest_whole() == 10
    damage(store.path(10)) if damage is not alter_manifest else remove(store.path(10))
    assert store.newest_whole() is None


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["world_model.safetensors", "world_model.pt", "world_model.json"])
def test_a_pickle_is_never_opened(store: CheckpointStore, tmp_path: Path, name: str) -> None:
    """Also when a stranger has made the manifest agree with it."""
    mark = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(mark))
    path = store.path(20)
    (path / name).write_bytes(bomb)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"][name] = {"bytes": len(bomb), "sha256": checkpoint_module._sha256(path / name)}
    signed = {**manifest, "sha256": checkpoint_module._signature(manifest)}
    (path / "manifest.json").write_text(json.dumps(signed))
    with pytest.raises(CheckpointError, match=name):
        store.load()
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists(), "the bomb is a dud: the test could not fail"


def test_a_file_that_does_not_belong_is_refused(store: CheckpointStore) -> None:
    (store.path(20) / "extra.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match="foreign: extra.pkl does not belong to it"):
        verify(store.path(20))


def test_a_manifest_cannot_point_outside(store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text("{}")
    manifest = json.loads((store.path(20) / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"]["../../outside.json"] = {"bytes": 2, "sha256": "0"}
    signed = {**manifest, "sha256": checkpoint_module._signature(manifest)}
    (store.path(20) / "manifest.json").write_text(json.dumps(signed))
    with pytest.raises(CheckpointError, match="foreign: it lists"):
        store.load()


def test_asking_for_what_is_not_there(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at 15 in .* there are \[10, 20\]"):
        store.load(15)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        CheckpointStore(tmp_path / "nowhere", keep=2).load()


class Crash(BaseException):
    """The process dies here; not an Exception, so that nothing tidies up, as with SIGKILL."""


def test_a_crash_at_any_moment_of_a_save_leaves_a_whole_newest_checkpoint(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies before each call that changes the disk in turn, until a save gets through."""
    original = tmp_path / "original"
    shutil.copytree(store.directory, original, symlinks=True)
    survived = 0
    for moment in range(200):
        shutil.rmtree(store.directory)
        shutil.copytree(original, store.directory, symlinks=True)
        with monkeypatch.context() as patch:
            _crash_before_call(patch, moment)
            try:
                save(store, 30)
            except Crash:
                survived += 1
            else:
                break
        fresh = CheckpointStore(store.directory, keep=2)
        loaded = fresh.load()
        assert loaded.env_steps in (20, 30)
        assert loaded.components["world_model"]["w"][0, 0] == loaded.env_steps
        save(fresh, 30)
        assert sorted(entry.name for entry in store.directory.iterdir()) == ["20", "30", "latest"]
    assert survived > 15
    assert store.load().env_steps == 30


def _crash_before_call(patch: pytest.MonkeyPatch, moment: int) -> None:
    calls = 0

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > moment:
                raise Crash
            return function(*args, **kwargs)

        return call

    for module, name in (
        (os, "fsync"),
        (os, "replace"),
        (checkpoint_module, "write_tensors"),
        (checkpoint_module.shutil, "rmtree"),
        (Path, "mkdir"),
        (Path, "symlink_to"),
        (Path, "unlink"),
    ):
        patch.setattr(module, name, counted(getattr(module, name)))


def test_a_full_disk_leaves_the_previous_one_whole(store: CheckpointStore) -> None:
    """The system refuses files beyond 64 KB, as a full disk would."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="could not write checkpoint .*30.*free some space"):
            store.save(30, {"replay": {"rows": torch.zeros(100_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert sorted(entry.name for entry in store.directory.iterdir()) == ["10", "20", "latest"]
    assert store.load().env_steps == 20


def test_going_back_discards_what_came_after(store: CheckpointStore) -> None:
    assert store.discard_after(10) == [20]
    assert store.steps() == [10]
    assert (store.directory / "latest").resolve() == store.path(10)
