"""A finished or stopped run, opened again to use what it learned: everything is rebuilt from its own folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from dima.run.assemble import Learner, build_learner, spec_of
from dima.run.checkpoint import Checkpoint, CheckpointError
from dima.run.folder import RunFolder
from dima.run.parameters import load_weights
from dima.run.runtime import DeviceChoice, choose_device, default_threads, limit_threads
from dima.run.settings import TrainSettings, load_config, read_settings
from worldmodel.config import ConfigError
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run's settings, and its model and policy as one checkpoint left them."""

    folder: RunFolder
    settings: TrainSettings
    learner: Learner
    env_steps: int
    """Of the checkpoint."""
    inference: dict[str, Any] | None
    """The weights of the inferencer that learned beside the policy; None where there is none."""


def parse_checkpoint(choice: int | str) -> int | None:
    """The env steps that `checkpoint=...` names; None for `latest`.

    Raises:
        ConfigError: for anything else.
    """
    if choice == "latest":
        return None
    if isinstance(choice, int):
        return choice
    raise ConfigError(f"checkpoint = {choice!r}: expected latest or a number of env steps")


def open_run(run: str, checkpoint: int | str, device: DeviceChoice, num_threads: int | None, command: str) -> SavedRun:
    """Rebuild model and policy of the run folder `run` and load a checkpoint into them.

    Raises:
        RunFolderError: when there is no such run.
        CheckpointError: naming what is damaged and, where there is one, the older checkpoint that is whole.
    """
    folder = RunFolder.open(Path(run))
    saved = read_settings(load_config(folder.config_file))
    if not isinstance(saved, TrainSettings):
        raise ConfigError(f"{run} was fitted offline: it holds no policy")
    settings = dataclasses.replace(saved, device=device, num_threads=num_threads or saved.num_threads)
    wanted = ("world_model", "policy") + (("inference",) if settings.inference.run is not None else ())
    loaded = load_or_offer(folder, parse_checkpoint(checkpoint), f"dima {command} run={run}", wanted)
    learner = build_learner(settings)
    learner.load(loaded.components)
    inference = loaded.components["inference"]["model"] if "inference" in wanted else None
    return SavedRun(folder, settings, learner, loaded.env_steps, inference)


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A world model as one checkpoint left it, whoever learned it: `dima train` or `dima fit`."""

    path: Path
    model: WorldModel[Any]
    spec: EnvSpec
    device: torch.device
    settings: Any
    """What the run was told: `TrainSettings` or `FitSettings`."""
    step: int
    """Of the checkpoint: env steps of training, updates of fitting."""
    manifest: dict[str, Any]


def open_model(
    run: str, checkpoint: int | str, device: DeviceChoice, num_threads: int | None, command: str
) -> SavedModel:
    """Rebuild the world model of the run folder `run` and load a checkpoint into it.

    Raises:
        RunFolderError: when there is no such run.
        CheckpointError: naming what is damaged and, where there is one, the older checkpoint that is whole.
    """
    folder = RunFolder.open(Path(run))
    settings = read_settings(load_config(folder.config_file))
    chosen = choose_device(device)
    limit_threads(num_threads or settings.num_threads or default_threads())
    loaded = load_or_offer(folder, parse_checkpoint(checkpoint), f"dima {command} run={run}", ("world_model",))
    spec = spec_of(settings.env)
    model = settings.world_model.build(spec)
    load_weights(lambda: model.load_state_dict(loaded.components["world_model"]))
    model.to(chosen)
    model.train(False)
    return SavedModel(folder.path, model, spec, chosen, settings, loaded.env_steps, folder.read_manifest())


def load_or_offer(
    folder: RunFolder, wanted: int | None, command: str, only: tuple[str, ...] | None = None
) -> Checkpoint:
    """The checkpoint at `wanted` env steps (None: the newest); a damaged one is refused and an older one offered.

    Raises:
        CheckpointError: naming the damage, with the `command` that uses the older one.
    """
    store = folder.checkpoints()
    steps = store.steps()
    if not steps:
        raise CheckpointError(f"{folder.path} holds no checkpoint: it stopped before its first; go on with resume=RUN")
    try:
        return store.load(wanted, only)
    except CheckpointError as error:
        spare = store.newest_whole(before=wanted if wanted is not None else (steps[-1] if steps else 0))
        if spare is None:
            raise CheckpointError(f"{error}; no older one is whole") from error
        raise CheckpointError(f"{error}; use the one before it: {command} checkpoint={spare}") from error
