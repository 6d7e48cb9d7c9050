"""The inferencers that `dima infer` measures, the episodes that are held out from all of them, and what is asked.

Refuses data of another task, episodes that one of them was fitted on, and runs that learned something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dima.run.held_out import label_of, read_env_config, require_common_data, split_for
from dima.run.infer_law import StateLaw
from dima.run.infer_settings import ENOUGH_EPISODES, InferSettings
from dima.run.saved_inference import GIVEN, SavedInference, open_inference
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset
from worldmodel.evaluation.curves import Bootstrap
from worldmodel.evaluation.moments import Moments, draw_moments
from worldmodel.evaluation.units import Units
from worldmodel.protocol import Auxiliary
from worldmodel.types import EnvSpec, Trajectory


@dataclasses.dataclass(frozen=True)
class Opened:
    """An inferencer as it is to be measured, and the data that is held out from it."""

    label: str
    saved: SavedInference
    training: Sequence[Trajectory]
    held_out: Sequence[Trajectory]

    @property
    def reads(self) -> tuple[Auxiliary, int]:
        """(auxiliary, history_steps): only inferencers that read the same are compared like with like."""
        return self.saved.inference.auxiliary, self.saved.inference.history_steps


@dataclasses.dataclass(frozen=True)
class InferTask:
    """What every inferencer is asked: the same moments, judged in the same units with the same bootstrap."""

    spec: EnvSpec
    units: Units
    moments: Moments
    bootstrap: Bootstrap
    bootstrap_by: str
    """`episodes` or `moments`."""
    num_samples: int
    law: StateLaw | None
    """The exact law of the state, where the environment knows it."""
    device: torch.device
    generator: Callable[..., torch.Generator]
    """A fresh generator for the stream of that name, on the CPU or on the device that is named after it."""


def open_runs(settings: InferSettings, dataset: Dataset, device: torch.device) -> list[Opened]:
    """Every inferencer that `settings` names, all with the same held-out episodes.

    Raises:
        RunFolderError, CheckpointError: when a run is missing or damaged.
        DatasetError, ConfigError: when the data is of another task, or not held out.
    """
    saved = [_open(source, settings, dataset, device) for source in settings.sources]
    splits = [None if each.path is None else split_for(each, dataset, settings.held_out) for each in saved]
    common = next((split for split in splits if split is not None), None)
    given = common or split_for(saved[0], dataset, settings.held_out)
    opened = [
        Opened(_label(source, settings), each, *(split or given))
        for source, each, split in zip(settings.sources, saved, splits, strict=True)
    ]
    require_common_data([(each.saved.path, each.held_out) for each in opened if each.saved.path] or [(None, given[1])])
    return opened


def _open(source: str, settings: InferSettings, dataset: Dataset, device: torch.device) -> SavedInference:
    checkpoint = "latest" if source in GIVEN else settings.checkpoint
    env = None if source in GIVEN else read_env_config(dataset)
    command = f"dima infer data={settings.data} run={source}"
    return open_inference(source, dataset.spec, env, device, checkpoint, key="run", command=command)


def _label(source: str, settings: InferSettings) -> str:
    others = [other for other in settings.sources if other not in GIVEN]
    return source if source in GIVEN else label_of(source, others)


def make_task(settings: InferSettings, dataset: Dataset, opened: Sequence[Opened], device: torch.device) -> InferTask:
    """The task on the episodes that are held out from all of `opened`; units come from all episodes of the dataset.

    Raises:
        ConfigError: when no entry of the state varies.
        ValueError: when there are fewer moments than asked for.
    """
    units = Units.of(torch.cat([episode.state for episode in dataset.trajectories]))
    if units.num_live == 0:
        raise ConfigError(f"{dataset.path}: no entry of the state varies, so there is nothing to infer")
    held_out = opened[0].held_out
    moments = draw_moments(held_out, settings.states, settings.generator("moments"))
    by = settings.resample
    if by == "auto":
        by = "episodes" if len(held_out) >= ENOUGH_EPISODES else "moments"
    groups = moments.episode if by == "episodes" else None
    return InferTask(
        spec=dataset.spec,
        units=units,
        moments=moments,
        bootstrap=Bootstrap(moments.num_moments, settings.resamples, settings.seed, groups),
        bootstrap_by=by,
        num_samples=settings.samples,
        law=StateLaw.of(_env_config(dataset)),
        device=device,
        generator=settings.generator,
    )


def _env_config(dataset: Dataset) -> Any:
    """The environment's configuration, None where dataset.json describes none."""
    return read_env_config(dataset) if dataset.header["env"] else None
