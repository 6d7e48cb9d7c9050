"""`dima fit`: a world model or a state inferencer learned offline from a dataset, measured on held-out episodes.

The run folder is like that of `dima train`, with checkpoints named after updates; `dima predict` reads both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from dima.run.checkpoint import Checkpoint
from dima.run.console import Progress, announce, say
from dima.run.fit_data import count_steps, describe_data, fill, split
from dima.run.fit_settings import FREE_ON_RESUME, FitSettings
from dima.run.fitter import Fitter
from dima.run.folder import RunFolder, default_path
from dima.run.hydra_app import chosen_groups, run_app
from dima.run.inference_config import describe_inference
from dima.run.manifest import make_manifest
from dima.run.parameters import describe_parameters, load_weights, require_parts
from dima.run.run_log import RunLog
from dima.run.runtime import Randomness, choose_device, default_threads, limit_threads
from dima.run.saved_run import load_or_offer, parse_checkpoint
from dima.run.settings import apply_overrides, load_config, read_settings
from dima.run.tracking import open_tracker
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset, read_dataset
from worldmodel.protocol import Learnable
from worldmodel.types import EnvSpec

_OF_TRAINING = ("env", "trainer", "policy", "env_steps", "replay", "engine", "profile")
"""What a preset says that plays no part here; the environment comes with the dataset."""


class FittingStopped(ValueError):
    """A fit stopped by a fault on the way; says what it was and from where to go on."""


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    _refuse_words_of_training(sys.argv[1:])
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
    name = choices[settings.learner]
    default = default_path(*dataset.spec.env_id.split("/"), name, f"fit-seed{settings.seed}")
    folder = RunFolder.create(Path(settings.out) if settings.out else default)
    try:
        folder.lock()
        choices = {group: choices[group] for group in (settings.learner, "preset")}
        manifest = make_manifest(randomness.device, dataset.spec, choices, settings.seed, [])
        manifest["data"] = describe_data(dataset, settings)
        if settings.inference is not None:
            manifest["inference"] = describe_inference(name, model)
        folder.write_manifest(manifest)
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
        _run(_assemble(settings, dataset, model, randomness), folder, settings, dataset)
    except Exception:
        if not folder.checkpoints().steps():
            folder.remove()
        raise


def _refuse_words_of_training(arguments: Sequence[str]) -> None:
    typed = [argument.lstrip("+~") for argument in reversed(arguments)]  # what a plug-in's words begin with comes last
    for argument in typed:
        if argument.partition("=")[0].split(".")[0] in _OF_TRAINING:
            raise ConfigError(
                f"{argument}: of no use to dima fit; the environment comes with data=DIR, training is updates=N"
            )


def _prepare_config(config: DictConfig) -> Dataset:
    """Read the data that `config` names and complete `config` with what comes with it."""
    if config.data is None:
        raise ConfigError("data has no value; name a dataset folder: data=DIR (dima collect makes one)")
    if config.checkpoint != "latest":
        raise ConfigError(f"checkpoint = {config.checkpoint!r}: only of use with resume=RUN")
    dataset = read_dataset(Path(config.data))
    OmegaConf.set_struct(config, False)
    for name in _OF_TRAINING:
        config.pop(name, None)
    if config.get("inference") is not None:
        config.world_model = None
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
    if dataset.fingerprint != manifest.get("data", {}).get("fingerprint"):
        raise ConfigError(f"{settings.data} is not the dataset that {folder.path} was begun with: its content differs")
    wanted = parse_checkpoint(config.checkpoint)
    checkpoint: Checkpoint | None = None
    if wanted is not None or folder.checkpoints().steps():
        checkpoint = load_or_offer(folder, wanted, f"dima fit resume={folder.path}")
    fitter = _assemble(settings, dataset, *_build(settings, dataset.spec))
    updates, time_s = -1, 0.0
    if checkpoint is not None:  # before anything in the folder changes: it may not fit
        state, updates, time_s = checkpoint.components, checkpoint.env_steps, checkpoint.counters["time_s"]
        load_weights(lambda: fitter.load_state_dict(state, checkpoint.counters))
        for step in folder.checkpoints(settings.keep_checkpoints).discard_after(updates):
            say(f"removed checkpoint {step}: the run goes on from {updates} updates")
    folder.cut_after(updates, "updates")
    folder.write_config(OmegaConf.to_yaml(saved))
    manifest["resumes"].append({"updates": max(updates, 0), "overrides": list(HydraConfig.get().overrides.task)})
    folder.write_manifest({**manifest, "is_finished": False})
    _run(fitter, folder, settings, dataset, time_s)


def _build(settings: FitSettings, spec: EnvSpec) -> tuple[Any, Randomness]:
    device = choose_device(settings.device)
    limit_threads(settings.num_threads or default_threads())
    randomness = Randomness(settings.seed, device)
    model = settings.learner_config.build(spec)
    if not hasattr(model, "parts"):
        raise ConfigError(f"{type(model).__name__} learns nothing; dima infer and dima evaluate take it as it is")
    require_parts(model)
    model.to(device)
    model.train(False)
    return model, randomness


def _assemble(settings: FitSettings, dataset: Dataset, model: Learnable, randomness: Randomness) -> Fitter:
    """The loop with its data."""
    training, held_out = split(dataset, settings)
    for trajectory in training:
        model.update_statistics(trajectory)
    return Fitter(
        settings.plan,
        model=model,
        replay=fill(training, dataset.spec, randomness.device),
        held_out=fill(held_out, dataset.spec, randomness.device) if held_out else None,
        randomness=randomness,
        learned=settings.learner,
    )


def _run(fitter: Fitter, folder: RunFolder, settings: FitSettings, dataset: Dataset, time_s: float = 0.0) -> None:
    """Tell what is about to be done, do it, and print the table."""
    _announce(fitter, folder, settings, dataset)
    container: Any = OmegaConf.to_container(load_config(folder.config_file))
    tracker = open_tracker(settings.tracking, folder.path, container, say)
    progress = Progress(fitter.updates, fitter.last_update, counted="updates")
    log = RunLog(folder, folder.checkpoints(settings.keep_checkpoints), tracker, progress, time_s)
    try:
        fitter.run(log)
    except KeyboardInterrupt:
        say(f"\nstopped; go on with: dima fit resume={folder.path}")
        raise
    except (ValueError, FloatingPointError) as error:
        steps = folder.checkpoints().steps()
        if not steps:
            raise
        raise FittingStopped(f"{error}; last good checkpoint: {folder.checkpoints().path(steps[-1])}") from error
    finally:
        log.close()
    folder.write_manifest({**folder.read_manifest(), "is_finished": True})
    _print_result(fitter, folder)
    say(f"run folder: {folder.path}")


def _announce(fitter: Fitter, folder: RunFolder, settings: FitSettings, dataset: Dataset) -> None:
    training, held_out = split(dataset, settings)
    counts = [f"{count_steps(each)} steps of {len(each)} episodes" for each in (training, held_out)]
    announce(
        "fit",
        {
            "task": f"{dataset.spec.env_id} ({dataset.spec.num_agents} agents)",
            "data": f"{counts[0]} to train on, {counts[1]} held out",
            "model": type(fitter.model).__name__ if settings.inference is None else type(settings.inference).__name__,
            "parameters": describe_parameters(fitter.model.parts()),
            "device": fitter.randomness.device,
            "updates": f"{fitter.updates} to {fitter.last_update}",
            "run folder": folder.path,
        },
    )


def _print_result(fitter: Fitter, folder: RunFolder) -> None:
    """The last training and held-out loss of every part, as metrics.jsonl has them."""
    latest: dict[str, float] = {}
    for line in folder.metrics_file.read_text(encoding="utf-8").splitlines():
        latest |= json.loads(line)
    table = Table(title="loss")
    for heading in ("part", "updates", "training", "held out"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name, budget in fitter.budgets.items():
        losses = [latest.get(f"{where}/{name}_loss") for where in (fitter.learned, "held_out")]
        table.add_row(name, str(budget), *("-" if loss is None else f"{loss:.4f}" for loss in losses))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
