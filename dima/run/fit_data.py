"""The data of an offline fit: which episodes are trained on, which are held out, and how that is remembered.

An episode is a pure function of a dataset's seed and its number, so two datasets may share some. Episodes are therefore
remembered by their checksums: none is ever measured on that was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dima.run.fit_settings import FitSettings
from dima.run.runtime import derive_seed
from worldmodel.dataset import Dataset, select_steps
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec, Trajectory


def split(dataset: Dataset, settings: FitSettings) -> tuple[list[Trajectory], list[Trajectory]]:
    """(training, held-out) trajectories; the training ones in an order drawn from the dataset, cut to `train_steps`."""
    chosen = [dataset.trajectories[number] for number in _order(dataset, settings)]
    if settings.train_steps is not None:
        chosen = select_steps(chosen, settings.train_steps)
    return chosen, [dataset.trajectories[number] for number in dataset.held_out(settings.held_out)]


def _order(dataset: Dataset, settings: FitSettings) -> list[int]:
    """The numbers of the episodes that are not held out, in the order in which a smaller budget takes them."""
    kept = set(dataset.held_out(settings.held_out))
    training = [number for number in range(len(dataset.trajectories)) if number not in kept]
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(derive_seed(0, "train_episodes")))
    return [training[i] for i in order.tolist()]


def describe_data(dataset: Dataset, settings: FitSettings) -> dict[str, Any]:
    """What a run's manifest keeps of its data."""
    training, held_out = split(dataset, settings)
    return {
        "path": settings.data,
        "fingerprint": dataset.fingerprint,
        "training_steps": count_steps(training),
        "training_episodes": [dataset.header["episodes"][number]["sha256"] for number in _order(dataset, settings)],
        "held_out_episodes": list(dataset.held_out(settings.held_out)),
        "held_out_steps": count_steps(held_out),
    }


def fill(trajectories: Sequence[Trajectory], spec: EnvSpec, device: torch.device) -> Replay:
    """A replay of just these episodes."""
    rows = sum(trajectory.length + 1 for trajectory in trajectories)
    replay = ReplayConfig(capacity=rows, recency="uniform").build(spec, 1, device)
    for trajectory in trajectories:
        replay.append(trajectory)
    return replay


def count_steps(trajectories: Sequence[Trajectory]) -> int:
    """Transitions in all of them."""
    return sum(trajectory.length for trajectory in trajectories)
