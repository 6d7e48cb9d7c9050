"""`dima fit`: a world model learned offline from a dataset, with held-out episodes that tell how well it generalises.

The run folder is like that of `dima train`, with checkpoints named after updates; `dima predict` reads both.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from dima.run.assemble import describe_parameters
from dima.run.checkpoint import Checkpoint
from dima.run.console import Progress, announce, say
from dima.run.fitter import FitPlan, Fitter
from dima.run.folder import RunFolder, default_path
from dima.run.hydra_app import chosen_groups, run_app
from dima.run.manifest import make_manifest
from dima.run.optimize import LearningRateDecay
from dima.run.run_log import RunLog
from dima.run.runtime import DeviceChoice, Randomness, choose_device, default_threads, derive_seed, limit_threads
from dima.run.saved_run import load_or_offer, parse_checkpoint
from dima.run.settings import apply_overrides, load_config, read_settings
from dima.run.tracking import TrackingConfig, open_tracker
from dima.run.trainer_config import Updates
from worldmodel.config import Config, ConfigError
from worldmodel.dataset import Dataset, read_dataset, select_steps
from worldmodel.protocol import WorldModel, WorldModelConfig
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec, Trajectory

FREE_ON_RESUME = ("updates", "log_every", "checkpoint_every", "keep_checkpoints", "device", "num_threads", "tracking")
"""What a resumed fit may change."""

_OF_TRAINING = ("env", "trainer", "policy", "env_steps")
"""What a preset says that plays no part here; the environment comes with the dataset."""


@dataclasses.dataclass(frozen=True)
class FitSettings(Config):
    """Everything that `dima fit` is told."""

    world_model: Any
    """A `WorldModelConfig`."""
    data: str
    """The dataset folder."""
    env: Any
    """The environment that the dataset comes from, as dataset.json describes it."""
    held_out: float
    """Share of the episodes that are kept from training."""
    train_steps: int | None
    """Transitions to train on; null: all that are not held out."""
    updates: Updates
    """Updates of each part: one number, or one for each part by name."""
    final_learning_rate: float
    """Learning rate of the last update, relative to the first."""
    decay_from: float
    """Share of the updates after which the learning rate begins to fall."""
    log_every: int
    """Updates between rows of metrics.jsonl."""
    held_out_batches: int
    """Batches of each part for the loss on held-out episodes."""
    checkpoint_every: int
    """Updates between checkpoints."""
    keep_checkpoints: int
    """Newest checkpoints that stay on the disk."""
    tracking: TrackingConfig
    """Mirrors of the metrics."""
    seed: int
    """What every random number of the run is derived from."""
    device: DeviceChoice
    """Where networks and data live."""
    num_threads: int | None
    """CPU threads of torch."""
    out: str | None
    """The run folder; null: a new one under runs/."""
    resume: str | None
    """A run folder to go on with."""
    checkpoint: int | str
    """Which checkpoint to go on from."""

    def validate(self) -> None:
        """Refuse what cannot be fitted."""
        self.require(callable(getattr(self.world_model, "build", None)), "world_model", "a config with build(spec)")
        self.require(0 <= self.held_out < 1, "held_out", "a share from 0 to below 1")
        self.require(self.train_steps is None or self.train_steps >= 1, "train_steps", "null or at least 1")
        counts = self.updates.values() if isinstance(self.updates, dict) else [self.updates]
        self.require(all(count >= 0 for count in counts) and any(counts), "updates", "at least 1 update of some part")
        self.require(0 < self.final_learning_rate <= 1, "final_learning_rate", "above 0, up to 1")
        self.require(0 <= self.decay_from <= 1, "decay_from", "a share from 0 to 1")
        for name in ("log_every", "held_out_batches", "checkpoint_every"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.keep_checkpoints >= 2, "keep_checkpoints", "at least 2")
        self.require(self.seed >= 0, "seed", "at least 0")

    @property
    def world_model_config(self) -> WorldModelConfig:
        """`world_model` by its type."""
        return self.world_model

    @property
    def plan(self) -> FitPlan:
        """How much is done."""
        decay = LearningRateDecay(self.final_learning_rate, self.decay_from)
        return FitPlan(self.updates, decay, self.log_every, self.held_out_batches, self.checkpoint_every)


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("fit", fit)


def fit(config: DictConfig) -> None:
    """Start the fit that `config` describes, or go on with the one that it names."""
    if config.resume is None:
        _start(config)
    else:
        _resume(config)


def _start(config: DictConfig) -> None:
    dataset = _prepare_config(config)
    settings: FitSettings = read_settings(config)
    choices = chosen_groups()
    model, randomness = _build(settings, dataset.spec)
    default = default_path(*dataset.spec.env_id.split("/"), choices["world_model"], f"fit-seed{settings.seed}")
    folder = RunFolder.create(Path(settings.out) if settings.out else default)
    try:
        folder.lock()
        choices = {name: choices[name] for name in ("world_model", "preset")}
        manifest = make_manifest(randomness.device, dataset.spec, choices, settings.seed, [])
        folder.write_manifest({**manifest, "data": _describe_data(dataset, settings)})
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
        fitter = _assemble(folder, settings, dataset, model, randomness)
        _run(fitter, folder)
    except Exception:
        if not folder.checkpoints().steps():
            folder.remove()
        raise


def _prepare_config(config: DictConfig) -> Dataset:
    """Read the data that `config` names and complete `config` with what comes with it."""
    for override in HydraConfig.get().overrides.task:
        if override.lstrip("+~").partition("=")[0].split(".")[0] in _OF_TRAINING:
            raise ConfigError(
                f"{override}: of no use to dima fit; the environment comes with data=DIR, training is updates=N"
            )
    if config.data is None:
        raise ConfigError("data has no value; name a dataset folder: data=DIR (dima collect makes one)")
    if config.checkpoint != "latest":
        raise ConfigError(f"checkpoint = {config.checkpoint!r}: only of use with resume=RUN")
    dataset = read_dataset(Path(config.data))
    OmegaConf.set_struct(config, False)
    for name in _OF_TRAINING:
        config.pop(name, None)
    config.env = dataset.header["env"]
    config.num_threads = config.num_threads or default_threads()
    return dataset


def _resume(config: DictConfig) -> None:
    folder = RunFolder.open(Path(config.resume))
    folder.lock()
    saved = load_config(folder.config_file)
    apply_overrides(saved, HydraConfig.get().overrides.task, FREE_ON_RESUME)
    settings = read_settings(saved)
    if not isinstance(settings, FitSettings):
        raise ConfigError(f"{folder.path} is no run of dima fit; go on with it: dima train resume={folder.path}")
    dataset = read_dataset(Path(settings.data))
    manifest = folder.read_manifest()
    if dataset.fingerprint != manifest["data"]["fingerprint"]:
        raise ConfigError(f"{settings.data} is not the dataset that {folder.path} was begun with: its content differs")
    wanted = parse_checkpoint(config.checkpoint)
    checkpoint: Checkpoint | None = None
    if wanted is not None or folder.checkpoints().steps():
        checkpoint = load_or_offer(folder, wanted, f"dima fit resume={folder.path}")
    model, randomness = _build(settings, dataset.spec)
    updates = -1 if checkpoint is None else checkpoint.env_steps
    if checkpoint is not None:
        for step in folder.checkpoints(settings.keep_checkpoints).discard_after(updates):
            say(f"removed checkpoint {step}: the run goes on from {updates} updates")
    folder.cut_after(updates, "updates")
    time_s = 0.0 if checkpoint is None else checkpoint.counters["time_s"]
    fitter = _assemble(folder, settings, dataset, model, randomness, max(updates, 0), time_s)
    if checkpoint is not None:
        fitter.load_state_dict(checkpoint.components, checkpoint.counters)
    folder.write_config(OmegaConf.to_yaml(saved))
    manifest["resumes"].append({"updates": max(updates, 0), "overrides": list(HydraConfig.get().overrides.task)})
    folder.write_manifest({**manifest, "is_finished": False})
    _run(fitter, folder)


def _build(settings: FitSettings, spec: EnvSpec) -> tuple[WorldModel[Any], Randomness]:
    device = choose_device(settings.device)
    limit_threads(settings.num_threads or default_threads())
    randomness = Randomness(settings.seed, device)
    model = settings.world_model_config.build(spec)
    model.to(device)
    model.train(False)
    return model, randomness


def split(dataset: Dataset, settings: FitSettings) -> tuple[list[Trajectory], list[Trajectory]]:
    """(training, held-out) trajectories; the training ones in an order drawn from the dataset, cut to `train_steps`."""
    kept = set(dataset.held_out(settings.held_out))
    training = [number for number in range(len(dataset.trajectories)) if number not in kept]
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(derive_seed(0, "train_episodes")))
    chosen = [dataset.trajectories[training[i]] for i in order.tolist()]
    if settings.train_steps is not None:
        chosen = select_steps(chosen, settings.train_steps)
    return chosen, [dataset.trajectories[number] for number in sorted(kept)]


def _assemble(
    folder: RunFolder,
    settings: FitSettings,
    dataset: Dataset,
    model: WorldModel[Any],
    randomness: Randomness,
    updates: int = 0,
    time_s: float = 0.0,
) -> Fitter:
    """The loop with its data; tells the person what is about to be done."""
    training, held_out = split(dataset, settings)
    for trajectory in training:
        model.update_statistics(trajectory)
    last = max(settings.updates.values()) if isinstance(settings.updates, dict) else settings.updates
    announce(
        "fit",
        {
            "task": f"{dataset.spec.env_id} ({dataset.spec.num_agents} agents)",
            "data": f"{_count(training)} to train on, {_count(held_out)} held out",
            "model": type(model).__name__,
            "parameters": describe_parameters(model.parts()),
            "device": randomness.device,
            "updates": f"{updates} to {last}",
            "run folder": folder.path,
        },
    )
    container: Any = OmegaConf.to_container(load_config(folder.config_file))
    tracker = open_tracker(settings.tracking, folder.path, container, say)
    store = folder.checkpoints(settings.keep_checkpoints)
    log = RunLog(folder, store, tracker, Progress(updates, last, counted="updates"), time_s)
    try:
        return Fitter(
            settings.plan,
            model=model,
            replay=_fill(training, dataset.spec, randomness.device),
            held_out=_fill(held_out, dataset.spec, randomness.device) if held_out else None,
            randomness=randomness,
            log=log,
        )
    except Exception:
        log.close()
        raise


def _fill(trajectories: list[Trajectory], spec: EnvSpec, device: torch.device) -> Replay:
    rows = sum(trajectory.length + 1 for trajectory in trajectories)
    replay = ReplayConfig(capacity=rows, recency="uniform").build(spec, 1, device)
    for trajectory in trajectories:
        replay.append(trajectory)
    return replay


def _run(fitter: Fitter, folder: RunFolder) -> None:
    try:
        fitter.run()
    except KeyboardInterrupt:
        say(f"\nstopped; go on with: dima fit resume={folder.path}")
        raise
    finally:
        fitter.log.close()
    folder.write_manifest({**folder.read_manifest(), "is_finished": True})
    _print_result(fitter)
    say(f"run folder: {folder.path}")


def _print_result(fitter: Fitter) -> None:
    """The last training and held-out loss of every part."""
    table = Table(title="loss")
    for heading in ("part", "updates", "training", "held out"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name, budget in fitter.budgets.items():
        losses = [fitter.losses.get(f"{where}/{name}_loss") for where in ("world_model", "held_out")]
        table.add_row(name, str(budget), *("-" if loss is None else f"{loss:.4f}" for loss in losses))
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _count(trajectories: list[Trajectory]) -> str:
    return f"{sum(t.length for t in trajectories)} steps of {len(trajectories)} episodes"


def _describe_data(dataset: Dataset, settings: FitSettings) -> dict[str, Any]:
    training, held_out = split(dataset, settings)
    return {
        "path": settings.data,
        "fingerprint": dataset.fingerprint,
        "training_steps": sum(trajectory.length for trajectory in training),
        "held_out_episodes": list(dataset.held_out(settings.held_out)),
        "held_out_steps": sum(trajectory.length for trajectory in held_out),
    }
