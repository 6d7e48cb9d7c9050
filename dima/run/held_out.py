"""Which episodes of a dataset a run may be measured on, and whether the data is of its task at all.

Shared by the commands that measure what was learned. Refuses what would make a comparison meaningless: data of another
task, episodes that a run was fitted on, runs that hold out different episodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from dima.run.fit_data import split as split_as_fitted
from dima.run.fit_settings import FitSettings
from dima.run.settings import read_settings
from envs.base import EnvConfig
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset
from worldmodel.episode_files import DatasetError
from worldmodel.types import Trajectory

_LENGTH_AND_LOOKS = ("episode_steps", "render_width", "render_height")
_WHERE_IT_RUNS = ("python", "device", "num_threads", "batching", "timeout_s", "start_timeout_s")
_HARMLESS = (*_LENGTH_AND_LOOKS, *_WHERE_IT_RUNS)
"""Options of environments that change neither how a state follows another nor what agents see of it. Where and how fast
a simulator runs is among them: data may come from another machine."""


class FittedRun(Protocol):
    """What must be known of a run."""

    @property
    def path(self) -> Path | None:
        """Its folder."""
        ...

    @property
    def settings(self) -> Any:
        """What it was told."""
        ...

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of its manifest.json."""
        ...


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


def require_same_env(dataset: Dataset, env: Any, run: str) -> None:
    """Refuse data from an environment with other options than `env`, the config of `run`.

    Raises:
        ConfigError: naming the first option that differs.
    """
    option = differing_option(read_env_config(dataset), env)
    if option is not None:
        name, ours, theirs = option
        raise ConfigError(f"{dataset.path} is data of another task: {name} is {ours}, that of run {run} {theirs}")


def differing_option(ours: Any, theirs: Any) -> tuple[str, str, str] | None:
    """The first option that makes two environments' configs those of different tasks: its name and both values.

    Specs may be equal where options are not: another law, or other entries hidden. How long episodes are, how they look
    and where the simulator runs does not matter.
    """
    if type(ours) is not type(theirs):
        return "env", type(ours).__name__, type(theirs).__name__
    for field in dataclasses.fields(theirs):
        values = getattr(ours, field.name), getattr(theirs, field.name)
        if values[0] != values[1] and field.name not in _HARMLESS:
            return f"env.{field.name}", repr(values[0]), repr(values[1])
    return None


def split_for(saved: FittedRun, dataset: Dataset, share: float) -> tuple[list[Trajectory], list[Trajectory]]:
    """(what baselines are fitted on, what is measured on): a fit's own split where it was fitted on this dataset.

    Episodes that a fit has trained on are never measured on, though they come from another dataset.

    Args:
        saved: the run.
        dataset: to be divided.
        share: of the episodes to measure on where the run has no split of its own.

    Raises:
        ConfigError: when nothing is left to measure on.
    """
    fitted = saved.manifest.get("data", {})
    if isinstance(saved.settings, FitSettings) and fitted.get("fingerprint") == dataset.fingerprint:
        training, held_out = split_as_fitted(dataset, saved.settings)
        if not held_out:
            raise ConfigError(f"{saved.path} was fitted on all of {dataset.path}: measure it on another dataset")
        return training, held_out
    kept, known = set(dataset.held_out(share)), set(fitted.get("training_episodes", ()))
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


def require_common_data(held_out: Sequence[tuple[Path | None, Sequence[Trajectory]]]) -> None:
    """Refuse runs (each with its held-out episodes) that have no common episodes that none was fitted on.

    Raises:
        ConfigError: naming the first two that disagree.
    """
    first, first_episodes = held_out[0]
    for other, episodes in held_out[1:]:
        if [id(episode) for episode in episodes] != [id(episode) for episode in first_episodes]:
            raise ConfigError(f"{first} and {other} hold out different episodes: fit them with the same held_out")


def label_of(run: str, runs: Sequence[str]) -> str:
    """What `run` is called among `runs`: its folder's name, with the folders above where two share it."""
    parts = Path(run).resolve().parts[1:]
    others = [Path(other).resolve().parts[1:] for other in runs if other != run]
    depth = 1
    while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in others):
        depth += 1
    return "-".join(parts[-depth:])
