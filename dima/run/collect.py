"""`dima collect`: a dataset of whole real episodes, played side by side and independently of each other.

What is in the dataset depends on its seed and settings alone, not on the number of workers nor on interruptions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from dima.run.assemble import spec_of
from dima.run.behaviour import (
    Behaviour,
    MixtureConfig,
    NoiseConfig,
    dataset_episode_seed,
    plan,
    play_episode,
    require_policies,
)
from dima.run.console import Progress, announce, say
from dima.run.folder import RunFolder, new_path
from dima.run.hydra_app import chosen_groups, run_app
from dima.run.manifest import describe_code
from dima.run.runtime import available_cores
from dima.run.settings import read_settings
from dima.run.workers import run_jobs
from envs.base import EnvConfig
from worldmodel.config import Config, ConfigError
from worldmodel.dataset import read_header, read_spec, write_header
from worldmodel.episode_files import DatasetError, describe_episode, episode_name, write_episode
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class CollectSettings(Config):
    """Everything that `dima collect` is told."""

    env: Any
    """An `EnvConfig`."""
    behaviour: str
    """Who acts, said as `policy=...`: `random`, `ou` (correlated noise), `scripted` (the environment's own script),
    `run:DIR` (its newest policy) or `mixture`."""
    run: str | None
    """With `mixture`: the run whose checkpoints take part; null: none."""
    episodes: int
    """Whole episodes."""
    noise: NoiseConfig
    """The noise of `ou` and `scripted`."""
    mixture: MixtureConfig
    """The shares of `mixture`."""
    seed: int
    """What every episode's seed is derived from."""
    num_workers: int | None
    """Processes that play episodes; null: the cores that may be used."""
    out: str | None
    """The dataset folder; null: a new one under datasets/."""
    resume: str | None
    """A dataset folder to finish."""

    def validate(self) -> None:
        """Refuse what cannot be collected."""
        self.require(self.episodes >= 1, "episodes", "at least 1")
        self.require(self.seed >= 0, "seed", "at least 0")
        self.require(self.num_workers is None or self.num_workers >= 1, "num_workers", "null or at least 1")
        self.require(isinstance(self.env, EnvConfig), "env", "a config with build(), named by env._target_")
        self.require(self.run is None or self.behaviour == "mixture", "run", "null unless policy=mixture")

    @property
    def env_config(self) -> EnvConfig:
        """`env` by its type."""
        return self.env


@dataclasses.dataclass(frozen=True)
class Job:
    """One episode to play and write."""

    folder: Path
    settings: CollectSettings
    behaviour: Behaviour
    number: int


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("collect", collect)


def collect(config: DictConfig) -> None:
    """Start the dataset that `config` describes, or finish the one that it names."""
    if config.resume is not None:
        _resume(Path(config.resume), config.num_workers)
        return
    settings: CollectSettings = read_settings(config)
    behaviours = plan(settings.behaviour, settings.run, settings.mixture, settings.episodes)
    spec = spec_of(settings.env_config)
    require_policies(behaviours, settings.env_config, spec)
    path = Path(settings.out) if settings.out else new_path(Path("datasets") / chosen_groups()["env"], _label(settings))
    folder = _create(path)
    header = {
        "env_id": spec.env_id,
        "env": OmegaConf.to_container(config.env, resolve=True),
        "spec": dataclasses.asdict(spec),
        "seed": settings.seed,
        "policy": settings.behaviour,
        "behaviours": [dataclasses.asdict(behaviour) for behaviour in behaviours],
        "num_episodes": settings.episodes,
        "num_steps": 0,
        "complete": False,
        "settings": OmegaConf.to_container(config, resolve=True),
        **describe_code(),
        "episodes": [],
    }
    try:
        write_header(path, header)
        _finish(folder, settings, spec, behaviours, header)
    except Exception as error:
        if not list(path.glob("episodes/*.npz")):
            folder.remove()
        elif isinstance(error, ValueError):
            kept = f"the whole episodes are kept; go on with: dima collect resume={path}"
            raise DatasetError(f"{error}; {kept}") from error
        raise


def _resume(path: Path, num_workers: int | None) -> None:
    for override in HydraConfig.get().overrides.task:
        if override.partition("=")[0] not in ("resume", "num_workers"):
            typed = override.replace("behaviour=", "policy=", 1)
            raise ConfigError(f"{typed}: with resume=DIR only num_workers may change; the rest a dataset keeps")
    header = read_header(path)
    if header["complete"]:
        raise DatasetError(f"{path} is finished: it holds all of its {header['num_episodes']} episodes")
    config = DictConfig(header["settings"])
    config.num_workers = num_workers
    settings = read_settings(config)
    if not isinstance(settings, CollectSettings):
        raise DatasetError(f"{path / 'dataset.json'} is damaged: settings are not those of dima collect")
    spec = spec_of(settings.env_config)
    if spec != read_spec(header, path):
        raise DatasetError(f"{path} was begun with another version of {spec.env_id}: {header['spec']['versions']}")
    # As planned when it was begun: a run that trains on in the meantime has other checkpoints.
    behaviours = [Behaviour(**behaviour) for behaviour in header["behaviours"]]
    require_policies(behaviours, settings.env_config, spec)
    _finish(RunFolder(path), settings, spec, behaviours, header)


def _finish(
    folder: RunFolder,
    settings: CollectSettings,
    spec: EnvSpec,
    behaviours: list[Behaviour],
    header: dict[str, Any],
) -> None:
    """Play the episodes that are not there yet, then list them all."""
    folder.lock()
    jobs = [Job(folder.path, settings, behaviour, number) for number, behaviour in enumerate(behaviours)]
    missing = [job for job in jobs if not (folder.path / episode_name(job.number)).is_file()]
    num_workers = min(settings.num_workers or available_cores(), max(len(missing), 1))
    announce(
        "collect",
        {
            "task": f"{spec.env_id} ({spec.num_agents} agents)",
            "policy": _describe_plan(behaviours),
            "episodes": f"{len(jobs)}, of which {len(jobs) - len(missing)} are there",
            "workers": num_workers,
            "dataset": folder.path,
        },
    )
    progress = Progress(len(jobs) - len(missing), len(jobs), counted="episodes")
    try:
        with contextlib.closing(run_jobs(_play, missing, num_workers)) as returns:
            for count, return_ in enumerate(returns, len(jobs) - len(missing) + 1):
                progress.show({"episodes": count, "episode/return": return_})
    except KeyboardInterrupt:
        say(f"\nstopped; go on with: dima collect resume={folder.path}")
        raise
    finally:
        progress.close()
    entries = [_entry(job, spec) for job in jobs]
    header |= {"complete": True, "num_steps": sum(entry["steps"] for entry in entries), "episodes": entries}
    write_header(folder.path, {name: value for name, value in header.items() if name != "schema"})
    _print_result(entries)
    say(f"dataset: {folder.path} ({header['num_steps']} steps)")


def _play(job: Job) -> float:
    episode = play_episode(job.settings.env_config, job.behaviour, job.settings.noise, job.settings.seed, job.number)
    write_episode(job.folder, job.number, episode)
    return float(episode.reward.sum())


def _entry(job: Job, spec: EnvSpec) -> dict[str, Any]:
    seed = dataset_episode_seed(job.settings.seed, job.number)
    return describe_episode(job.folder, job.number, spec, seed=seed, behaviour=job.behaviour.name)


def _create(path: Path) -> RunFolder:
    """A new folder; one that holds a dataset is never touched, and one that is unfinished is offered."""
    if (path / "dataset.json").exists():
        go_on = "" if read_header(path)["complete"] else f", or finish this one: dima collect resume={path}"
        raise DatasetError(f"out = {str(path)!r} holds another dataset; choose another folder{go_on}")
    return RunFolder.create(path)


def _label(settings: CollectSettings) -> str:
    return "policy" if settings.behaviour.startswith("run:") else settings.behaviour


def _describe_plan(behaviours: list[Behaviour]) -> str:
    counts = Counter(behaviour.name for behaviour in behaviours)
    return ", ".join(f"{name} ({count} episodes)" for name, count in sorted(counts.items()))


def _print_result(entries: list[dict[str, Any]]) -> None:
    """Episodes, steps and returns of each behaviour."""
    table = Table(title="episodes")
    for heading in ("who acted", "episodes", "steps", "mean return", "min", "max", "terminated"):
        table.add_column(heading, justify="left" if heading == "who acted" else "right")
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        by_name[entry["behaviour"]].append(entry)
    for name, group in sorted(by_name.items()):
        returns = [entry["return"] for entry in group]
        figures = [f"{figure:.1f}" for figure in (statistics.fmean(returns), min(returns), max(returns))]
        steps, ends = sum(entry["steps"] for entry in group), sum(entry["terminated"] for entry in group)
        table.add_row(name, str(len(group)), str(steps), *figures, str(ends))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
