"""A dataset folder: `dataset.json` and `episodes/*.npz`, whole real episodes that models are fitted to and measured on.

Each file is replaced as a whole, so a killed collection leaves whole episodes and goes on. What is read back has been
checked: shapes against the spec, every value finite, checksums. Knows nothing of environments or agents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodel.atomic import write_whole
from worldmodel.episode_files import EPISODES, DatasetError, read_listed
from worldmodel.types import EnvSpec, Trajectory

SCHEMA = 1
HEADER = "dataset.json"
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


def write_header(path: Path, header: Mapping[str, Any]) -> None:
    """Replace dataset.json in the folder `path`."""
    write_whole(path / HEADER, json.dumps({"schema": SCHEMA, **header}, indent=1) + "\n")


def read_header(path: Path) -> dict[str, Any]:
    """What dataset.json says, finished or not.

    Raises:
        DatasetError: when there is no dataset at `path`, or none that this program can read.
    """
    file = path / HEADER
    if not file.is_file():
        is_run = (path / "manifest.json").is_file()
        why = (
            "it is a run folder; dima collect makes datasets"
            if is_run
            else f"it has no {HEADER} (dima collect makes one)"
        )
        raise DatasetError(f"no dataset at {str(path)!r}: {why}")
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
        raise DatasetError(f"{path / HEADER} is damaged: spec: {error}") from error


def _require_types(path: Path, what: str, values: Any, types: Mapping[str, type]) -> None:
    """Refuse a part of dataset.json, called `what`, that lacks a key of `types` or has another type there."""
    file = path / HEADER
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
        found = len(list((path / EPISODES).glob("*.npz")))
        raise DatasetError(
            f"{path} is unfinished: {found} of {header['num_episodes']} episodes; finish it: dima collect resume={path}"
        )
    listed, promised = len(header["episodes"]), header["num_episodes"]
    if listed != promised or listed == 0:
        raise DatasetError(f"{path} is cut off: {HEADER} lists {listed} episodes, but num_episodes is {promised}")
    episodes = tuple(read_listed(path, number, entry, spec) for number, entry in enumerate(header["episodes"]))
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
