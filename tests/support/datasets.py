"""Dataset folders made without an environment, and changes to them that somebody with a text editor could make."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from worldmodel.dataset import read_dataset, write_header
from worldmodel.episode_files import DatasetError, describe_episode, write_episode
from worldmodel.types import EnvSpec, Trajectory


def write_dataset(
    folder: Path, spec: EnvSpec, episodes: Sequence[Trajectory], behaviours: Sequence[str] | None = None
) -> None:
    """A finished dataset of `episodes`, with seeds 100, 101, ..."""
    folder.mkdir(exist_ok=True)
    entries = []
    for number, episode in enumerate(episodes):
        write_episode(folder, number, episode)
        name = behaviours[number] if behaviours else "random"
        entries.append(describe_episode(folder, number, spec, seed=100 + number, behaviour=name))
    write_header(
        folder,
        {
            "env_id": spec.env_id,
            "env": {},
            "spec": dataclasses.asdict(spec),
            "num_episodes": len(entries),
            "num_steps": sum(entry["steps"] for entry in entries),
            "complete": True,
            "settings": {},
            "episodes": entries,
        },
    )


def edit_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` alter the content of dataset.json in place."""
    file = folder / "dataset.json"
    header = json.loads(file.read_text())
    change(header)
    file.write_text(json.dumps(header))


def replace_episode(folder: Path, number: int, change: Callable[[Trajectory], Trajectory]) -> None:
    """Put what `change` makes of an episode in its place and, unless it is faulty, list it as if it had been there."""
    old = read_dataset(folder)
    write_episode(folder, number, change(old.trajectories[number]))
    said = old.header["episodes"][number]
    with contextlib.suppress(DatasetError):
        new = describe_episode(folder, number, old.spec, seed=said["seed"], behaviour=said["behaviour"])
        edit_header(folder, lambda header: header["episodes"].__setitem__(number, new))
