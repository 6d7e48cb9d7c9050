"""The models that `dima predict` measures, and the data that is held out from them.

Refuses what would make a comparison meaningless: data of another task, episodes that a model was fitted on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dima.run.fit_data import split as split_as_fitted
from dima.run.fit_settings import FitSettings
from dima.run.messages import nearest
from dima.run.predict_settings import PredictSettings
from dima.run.prediction import variants
from dima.run.prediction_record import Opened
from dima.run.saved_run import SavedModel, open_model
from dima.run.settings import read_settings
from envs.base import EnvConfig
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset, require_same_task
from worldmodel.episode_files import DatasetError
from worldmodel.types import Trajectory

ORDERS = ("descending", "ascending", "cycle", "random")
"""Orders by name; any other is a list of agents."""

_NO_DYNAMICS = ("episode_steps", "render_width", "render_height")
"""Options of environments that change nothing about how a state follows another."""


def open_runs(settings: PredictSettings, dataset: Dataset) -> list[Opened]:
    """Every run that `settings` names, all with the same held-out episodes.

    Raises:
        RunFolderError, CheckpointError: when a run is missing or damaged.
        DatasetError, ConfigError: when the data is of another task, or not held out.
    """
    opened = [_open(run, settings, dataset) for run in settings.runs or (settings.run,) if run is not None]
    _require_common_data(opened)
    return opened


def _require_known_orders(settings: PredictSettings) -> None:
    """Refuse a name that is no order, before a model does so in words of its own."""
    for order in settings.orders:
        if isinstance(order, str) and order not in ORDERS:
            raise ConfigError(f"orders: there is no order {nearest(order, ORDERS)} (orders: {', '.join(ORDERS)})")


def read_env_config(dataset: Dataset) -> EnvConfig:
    """The environment that a dataset was recorded in.

    Raises:
        DatasetError: when dataset.json describes none.
    """
    described = OmegaConf.create(dict(dataset.header["env"]))
    env = read_settings(described) if isinstance(described, DictConfig) and "_target_" in described else None
    if not isinstance(env, EnvConfig):
        raise DatasetError(f"{dataset.path / 'dataset.json'} is damaged: env is no environment's configuration")
    return env


def _open(run: str, settings: PredictSettings, dataset: Dataset) -> Opened:
    saved = open_model(run, settings.checkpoint, settings.device, settings.num_threads, "predict")
    require_same_task(dataset, saved.spec, f"run {run}")
    _require_same_env(dataset, saved.settings.env, run)
    _require_known_orders(settings)
    model = _resampled(saved.model, settings)
    training, held_out = _split(saved, settings, dataset)
    return Opened(_label(run, settings), saved, variants(model, settings.orders), training, held_out)


def _require_same_env(dataset: Dataset, env: Any, run: str) -> None:
    """Refuse data from an environment with other options; how long episodes are and how they look does not matter.

    Raises:
        ConfigError: naming the first option that differs.
    """
    recorded = read_env_config(dataset)
    if type(recorded) is not type(env):
        raise ConfigError(f"{dataset.path} is data of {type(recorded).__name__}, run {run} of {type(env).__name__}")
    for field in dataclasses.fields(env):
        ours, theirs = getattr(recorded, field.name), getattr(env, field.name)
        if ours != theirs and field.name not in _NO_DYNAMICS:
            raise ConfigError(
                f"{dataset.path} is data of another task: env.{field.name} is {ours!r}, that of run {run} {theirs!r}"
            )


def _resampled(model: Any, settings: PredictSettings) -> Any:
    """The model with another number of denoising steps or another solver, where asked for."""
    if settings.num_denoising_steps is None and settings.solver is None:
        return model
    if not hasattr(model, "with_sampling"):
        raise ConfigError(f"num_denoising_steps and solver: {type(model).__name__} has no such choice")
    return model.with_sampling(settings.num_denoising_steps, settings.solver)


def _split(saved: SavedModel, settings: PredictSettings, dataset: Dataset) -> tuple[list[Trajectory], list[Trajectory]]:
    """(what baselines are fitted on, what is measured on): a fit's own split where it was fitted on this dataset.

    Episodes that a fit has trained on are never measured on, though they come from another dataset.
    """
    fitted = saved.manifest.get("data", {})
    if isinstance(saved.settings, FitSettings) and fitted.get("fingerprint") == dataset.fingerprint:
        training, held_out = split_as_fitted(dataset, saved.settings)
        if not held_out:
            raise ConfigError(f"{saved.path} was fitted on all of {dataset.path}: measure it on another dataset")
        return training, held_out
    kept, known = set(dataset.held_out(settings.held_out)), set(fitted.get("training_episodes", ()))
    entries = zip(dataset.header["episodes"], dataset.trajectories, strict=True)
    fresh = [(number, episode) for number, (entry, episode) in enumerate(entries) if entry["sha256"] not in known]
    training = [episode for number, episode in fresh if number not in kept]
    held_out = [episode for number, episode in fresh if number in kept]
    if not (training and held_out):
        raise ConfigError(
            f"{saved.path} was fitted on the episodes of {dataset.path} that would be held out or fit the baselines:"
            " measure it on the dataset that it was fitted on, or on one collected with another seed"
        )
    return training, held_out


def _require_common_data(opened: Sequence[Opened]) -> None:
    """Models can be compared on episodes only that none of them was fitted on."""
    first = opened[0]
    for other in opened[1:]:
        if [id(episode) for episode in other.held_out] != [id(episode) for episode in first.held_out]:
            both = f"{first.saved.path} and {other.saved.path}"
            raise ConfigError(f"{both} hold out different episodes: fit them with the same held_out")


def _label(run: str, settings: PredictSettings) -> str:
    """What a run is called among the others: its folder's name, with the folders above where two share it."""
    parts = Path(run).resolve().parts[1:]
    others = [Path(other).resolve().parts[1:] for other in settings.runs or () if other != run]
    depth = 1
    while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in others):
        depth += 1
    return "-".join(parts[-depth:])
