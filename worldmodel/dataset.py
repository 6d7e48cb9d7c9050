"""A dataset folder: `dataset.json` and `episodes/*.npz`, whole real episodes that models are fitted to and measured on.

Each file is replaced as a whole, so a killed collection leaves whole episodes and goes on. What is read back has been
checked: shapes against the spec, every value finite, checksums. Knows nothing of environments or agents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from worldmodel.atomic import write_whole, write_whole_binary
from worldmodel.types import EnvSpec, Trajectory

SCHEMA = 1
_HEADER, _EPISODES = "dataset.json", "episodes"
_FIELDS = ("obs", "state", "action", "reward", "terminated", "truncated")

_HEADER_TYPES = {
    "env_id": str,
    "env": dict,
    "spec": dict,
    "num_episodes": int,
    "complete": bool,
    "settings": dict,
    "episodes": list,
}
_ENTRY_TYPES = {"seed": int, "steps": int, "behaviour": str, "sha256": str}
_SPEC_TYPES = {"env_id": str, "num_agents": int, "state_dim": int, "episode_steps": int, "appends_agent_id": bool}


class DatasetError(ValueError):
    """A dataset that is missing, damaged, unfinished or does not fit; says which file and what is wrong."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a finished dataset folder holds."""

    path: Path
    header: Mapping[str, Any]
    """The content of dataset.json."""
    spec: EnvSpec
    trajectories: tuple[Trajectory, ...]
    """Whole episodes, in the order of their numbers."""

    @property
    def num_steps(self) -> int:
        """Transitions in all episodes."""
        return sum(trajectory.length for trajectory in self.trajectories)

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Who acted in each episode."""
        return tuple(str(entry["behaviour"]) for entry in self.header["episodes"])

    @property
    def fingerprint(self) -> str:
        """A checksum over all episodes: two datasets with the same one hold the same data."""
        together = "".join(entry["sha256"] for entry in self.header["episodes"])
        return hashlib.sha256(together.encode()).hexdigest()[:16]

    def held_out(self, share: float) -> tuple[int, ...]:
        """The numbers of the episodes to keep from training: evenly spaced among all when sorted by who acted.

        A pure function of the dataset and `share`, so that fitting and measuring agree on it. At least one episode
        (none for share 0), and at least one is left to train on.

        Raises:
            DatasetError: when there are too few episodes to divide.
        """
        if share == 0:
            return ()
        total = len(self.trajectories)
        count = max(1, round(share * total))
        if count >= total:
            raise DatasetError(f"{self.path} has {total} episodes: too few to hold out {share:g} of them; collect more")
        ranked = sorted(range(total), key=lambda number: (self.behaviours[number], number))
        return tuple(sorted(ranked[(2 * i + 1) * total // (2 * count)] for i in range(count)))


def episode_name(number: int) -> str:
    """The file of episode `number`, inside the dataset folder."""
    return f"{_EPISODES}/{number:05d}.npz"


def write_header(path: Path, header: Mapping[str, Any]) -> None:
    """Replace dataset.json in the folder `path`."""
    write_whole(path / _HEADER, json.dumps({"schema": SCHEMA, **header}, indent=1) + "\n")


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


def read_header(path: Path) -> dict[str, Any]:
    """What dataset.json says, finished or not.

    Raises:
        DatasetError: when there is no dataset at `path`, or none that this program can read.
    """
    file = path / _HEADER
    if not file.is_file():
        raise DatasetError(f"no dataset at {str(path)!r}: it has no {_HEADER} (dima collect makes one)")
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{file} is damaged: {error}") from error
    _require_types(path, "it", header, {"schema": int})
    if header["schema"] != SCHEMA:
        raise DatasetError(f"{file} has schema {header['schema']}, this program reads schema {SCHEMA}")
    _require_types(path, "it", header, _HEADER_TYPES)
    for number, entry in enumerate(header["episodes"]):
        _require_types(path, f"episode {number}", entry, _ENTRY_TYPES)
    return header


def read_spec(header: Mapping[str, Any], path: Path) -> EnvSpec:
    """The spec in a header.

    Raises:
        DatasetError: when it is damaged.
    """
    saved = dict(header["spec"])
    _require_types(path, "spec", saved, _SPEC_TYPES)
    try:
        for name in ("obs_sizes", "action_sizes"):
            saved[name] = tuple(map(operator.index, saved[name]))
        saved["versions"] = tuple((str(name), str(version)) for name, version in saved["versions"])
        return EnvSpec(**saved)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path / _HEADER} is damaged: spec: {error}") from error


def _require_types(path: Path, what: str, values: Any, types: Mapping[str, type]) -> None:
    """Refuse a part of dataset.json, called `what`, that lacks a key of `types` or has another type there."""
    file = path / _HEADER
    if not isinstance(values, dict):
        raise DatasetError(f"{file} is damaged: {what} is no object with keys")
    for name, type_ in types.items():
        if name not in values:
            raise DatasetError(f"{file} is damaged: {what} has no {name!r}")
        if type(values[name]) is not type_:
            raise DatasetError(f"{file} is damaged: {what} has {name} = {values[name]!r}, expected {type_.__name__}")


def read_dataset(path: Path) -> Dataset:
    """A finished dataset, every value of it checked.

    Raises:
        DatasetError: naming the file and what is wrong: missing, cut off, shapes that disagree with the spec, a NaN.
    """
    header = read_header(path)
    spec = read_spec(header, path)
    if not header["complete"]:
        found = len(list((path / _EPISODES).glob("*.npz")))
        raise DatasetError(
            f"{path} is unfinished: {found} of {header['num_episodes']} episodes; finish it: dima collect resume={path}"
        )
    listed, promised = len(header["episodes"]), header["num_episodes"]
    if listed != promised or listed == 0:
        raise DatasetError(f"{path} is cut off: {_HEADER} lists {listed} episodes, but num_episodes is {promised}")
    episodes = tuple(_read_listed(path, number, entry, spec) for number, entry in enumerate(header["episodes"]))
    return Dataset(path, header, spec, episodes)


def require_same_task(dataset: Dataset, spec: EnvSpec, what: str) -> None:
    """Refuse data of another task than that of `what`, whose spec is `spec`; versions may differ.

    Raises:
        DatasetError: naming the first thing that differs.
    """
    name = differing_field(dataset.spec, spec)
    if name is not None:
        ours, theirs = getattr(dataset.spec, name), getattr(spec, name)
        raise DatasetError(f"{dataset.path} is data of another task: {name} is {ours!r}, that of {what} {theirs!r}")


def differing_field(ours: EnvSpec, theirs: EnvSpec) -> str | None:
    """The first field that makes two specs those of different tasks; versions and lengths of episodes do not."""
    fields = ("env_id", "num_agents", "state_dim", "obs_sizes", "action_sizes", "appends_agent_id")
    return next((name for name in fields if getattr(ours, name) != getattr(theirs, name)), None)


def select_steps(trajectories: Sequence[Trajectory], num_steps: int) -> list[Trajectory]:
    """The first `num_steps` transitions of `trajectories`; the last episode that fits in part is cut there.

    Raises:
        ValueError: when there are fewer.
    """
    total = sum(trajectory.length for trajectory in trajectories)
    if total < num_steps:
        raise ValueError(f"asked for {num_steps} steps, but the training episodes hold {total}")
    chosen, left = [], num_steps
    for trajectory in trajectories:
        if left <= 0:
            break
        chosen.append(trajectory if trajectory.length <= left else _first_steps(trajectory, left))
        left -= trajectory.length
    return chosen


def _first_steps(trajectory: Trajectory, length: int) -> Trajectory:
    return dataclasses.replace(
        trajectory,
        obs=trajectory.obs[: length + 1],
        state=trajectory.state[: length + 1],
        **{name: getattr(trajectory, name)[:length] for name in ("action", "reward", "terminated", "truncated")},
    )


def _read_listed(path: Path, number: int, entry: Mapping[str, Any], spec: EnvSpec) -> Trajectory:
    content = _read_bytes(path, number)
    # Parsed first: a NaN is named where a checksum would only differ.
    episode = _parse(path, number, content, spec, entry["seed"])
    if episode.length != entry["steps"]:
        raise DatasetError(
            f"{path / episode_name(number)} holds {episode.length} steps, {_HEADER} says {entry['steps']}"
        )
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise DatasetError(f"{path / episode_name(number)} was altered: it does not match its checksum in {_HEADER}")
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
