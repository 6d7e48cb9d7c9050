"""The episodes of a dataset folder: one npz file each, float32, written as a whole and checked when read.

Shapes against the spec, every value finite, checksums; nothing in a file can run code.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from worldmodel.atomic import write_whole_binary
from worldmodel.types import EnvSpec, Trajectory

EPISODES = "episodes"
_FIELDS = ("obs", "state", "action", "reward", "terminated", "truncated")


class DatasetError(ValueError):
    """A dataset that is missing, damaged, unfinished or does not fit; says which file and what is wrong."""


def episode_name(number: int) -> str:
    """The file of episode `number`, inside the dataset folder."""
    return f"{EPISODES}/{number:05d}.npz"


def write_episode(path: Path, number: int, episode: Trajectory) -> None:
    """Write one whole episode; all arrays as float32, ends as 0 and 1."""
    arrays = {name: getattr(episode, name).to(torch.float32).numpy() for name in _FIELDS}
    file = path / episode_name(number)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole_binary(file, lambda opened: np.savez(opened, **arrays))


def describe_episode(path: Path, number: int, spec: EnvSpec, *, seed: int, behaviour: str) -> dict[str, Any]:
    """The entry of a written episode in dataset.json; reads and checks the file.

    Raises:
        DatasetError: when the file is not a whole, valid episode.
    """
    content = _read_bytes(path, number)
    episode = _parse(path, number, content, spec, seed)
    return {
        "file": episode_name(number),
        "steps": episode.length,
        "seed": seed,
        "behaviour": behaviour,
        "return": float(episode.reward.sum(dtype=torch.float64)),
        "terminated": bool(episode.terminated[-1]),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def read_listed(path: Path, number: int, entry: Mapping[str, Any], spec: EnvSpec) -> Trajectory:
    """Episode `number`, as its `entry` in dataset.json lists it.

    Raises:
        DatasetError: when the file is missing, damaged, cut off or another one.
    """
    content = _read_bytes(path, number)
    # Parsed first: a NaN is named where a checksum would only differ.
    episode = _parse(path, number, content, spec, entry["seed"])
    if episode.length != entry["steps"]:
        raise DatasetError(
            f"{path / episode_name(number)} holds {episode.length} steps, dataset.json says {entry['steps']}"
        )
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise DatasetError(f"{path / episode_name(number)} was altered: it does not match its checksum in dataset.json")
    return episode


def _read_bytes(path: Path, number: int) -> bytes:
    file = path / episode_name(number)
    if not file.is_file():
        raise DatasetError(f"{path} is cut off: {episode_name(number)} is missing")
    return file.read_bytes()


def _parse(path: Path, number: int, content: bytes, spec: EnvSpec, seed: int) -> Trajectory:
    file = path / episode_name(number)
    tensors = _load_tensors(file, content)
    try:
        for name in ("terminated", "truncated"):
            if not bool(((tensors[name] == 0) | (tensors[name] == 1)).all()):
                raise ValueError(f"{name} holds other values than 0 and 1")
        episode = Trajectory(
            obs=tensors["obs"],
            state=tensors["state"],
            action=tensors["action"],
            reward=tensors["reward"],
            terminated=tensors["terminated"] > 0,
            truncated=tensors["truncated"] > 0,
            seed=seed,
        ).validate(spec)
        if episode.is_open:
            raise ValueError("the episode is cut off: its last step neither terminates nor truncates it")
    except (ValueError, FloatingPointError) as error:
        raise DatasetError(f"{file}: {error}") from error
    return episode


def _load_tensors(file: Path, content: bytes) -> dict[str, Tensor]:
    """The arrays of an episode file by name; nothing in it is ever unpickled."""
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("a single array instead of an archive")
        arrays = {name: archive[name] for name in archive.files if name in _FIELDS}
    except Exception as error:  # a damaged archive trips zipfile and NumPy in many ways
        raise DatasetError(f"{file} is cut off or damaged: {' '.join(str(error).split())}") from error
    for name in _FIELDS:
        if name not in arrays:
            raise DatasetError(f"{file} is damaged: it has no array {name!r}")
        if arrays[name].dtype != np.float32:
            raise DatasetError(f"{file}: {name} has dtype {arrays[name].dtype}, expected float32")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
