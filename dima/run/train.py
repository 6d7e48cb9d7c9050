"""`dima train`: make or open a run folder, build everything, run Algorithm 1, show how it came out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dima.run.assemble import Learner, build_learner, build_trainer, evaluation_seeds
from dima.run.checkpoint import Checkpoint
from dima.run.console import Progress, announce, print_scores, say, warn
from dima.run.engine import EngineConfig
from dima.run.execution_facts import announce_execution, describe_execution
from dima.run.folder import RunFolder, default_path
from dima.run.hydra_app import chosen_groups, run_app
from dima.run.inference_start import begin_inference, resume_inference, warn_where_nothing_is_learned
from dima.run.inference_training import InferenceTraining
from dima.run.manifest import make_manifest
from dima.run.parameters import require_parts
from dima.run.round_profile import RoundProfile
from dima.run.run_log import RunLog
from dima.run.runtime import default_threads
from dima.run.saved_run import load_or_offer, parse_checkpoint
from dima.run.settings import TrainSettings, apply_overrides, load_config, read_settings
from dima.run.tracking import open_tracker
from dima.run.trainer import Trainer
from envs.random_agent import RandomAgent
from worldmodel.config import ConfigError


class TrainingStopped(ValueError):
    """Training could not go on; says why, and which checkpoint is the last good one."""


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("train", train)


def train(config: DictConfig) -> None:
    """Start the run that `config` describes, or go on with the one that it names."""
    if config.resume is None:
        _start(config)
    else:
        _resume(config)


def _start(config: DictConfig) -> None:
    """A new run in a new folder, which is removed again if nothing comes of it."""
    if config.checkpoint != "latest":
        raise ConfigError(f"checkpoint = {config.checkpoint!r}: only of use with resume=RUN")
    if not isinstance(config.inference, DictConfig):
        is_fit = Path(str(config.inference)).is_dir()
        first = "" if is_fit else f"first dima fit data=DIR inference={config.inference} out=RUN, then "
        raise ConfigError(
            f"inference = {config.inference!r}: training takes an inferencer that was fitted before; {first}"
            f"inference.run={config.inference if is_fit else 'RUN'}"
        )
    if config.num_threads is None:
        config.num_threads = default_threads()
    settings: TrainSettings = read_settings(config)
    choices = chosen_groups()
    learner = build_learner(settings)
    require_parts(learner.model)
    inference = begin_inference(config, settings, learner)
    if inference is not None:
        settings = read_settings(config)
    default = default_path(choices["env"], choices["world_model"], f"seed{settings.seed}")
    folder = RunFolder.create(Path(settings.out) if settings.out else default)
    trainer: Trainer | None = None
    try:
        folder.lock()
        seeds = evaluation_seeds(settings)
        execution = describe_execution(settings, learner.model, inference)
        manifest = make_manifest(learner.device, learner.spec, choices, settings.seed, seeds)
        folder.write_manifest({**manifest, "execution": execution})
        scores = {
            "env": learner.spec.env_id,
            "versions": dict(learner.spec.versions),
            "seed": settings.seed,
            "execution": execution,
            "episode_seeds": seeds,
            "evaluations": [],
        }
        folder.write_scores(scores)
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
        warn_where_nothing_is_learned(settings, learner.spec.episode_steps)
        trainer = _prepare(folder, settings, learner, inference, time_s=0.0)
        _run(trainer, settings)
    except BaseException as error:
        failed_at_once = isinstance(error, Exception) and (trainer is None or trainer.counters.env_steps == 0)
        if trainer is None or failed_at_once:
            folder.remove()
        raise


def _resume(config: DictConfig) -> None:
    """Go on with the run in `config.resume`, with its own configuration but for what the command line changes."""
    folder = RunFolder.open(Path(config.resume))
    folder.lock()
    saved = load_config(folder.config_file)
    is_older = _bring_up_to_date(saved)
    apply_overrides(saved, HydraConfig.get().overrides.task)
    settings = read_settings(saved)
    if not isinstance(settings, TrainSettings):
        raise ConfigError(f"{folder.path} is no run of dima train; go on with it: dima fit resume={folder.path}")
    if is_older:
        warn(f"{folder.path} is of an older version: batches and noise of its parts come from new random streams")
    store = folder.checkpoints(settings.trainer.keep_checkpoints)
    checkpoint = _choose_checkpoint(folder, config.checkpoint)
    learner = build_learner(settings)
    env_steps = -1 if checkpoint is None else checkpoint.env_steps
    counters = {} if checkpoint is None else dict(checkpoint.counters)
    # Both before anything in the folder changes: they may be refused.
    inference = resume_inference(settings, learner, from_fit=checkpoint is None, path=folder.path)
    if checkpoint is not None:
        learner.load(checkpoint.components)
        for step in store.discard_after(checkpoint.env_steps):
            say(f"removed checkpoint {step}: the run goes on from {checkpoint.env_steps} env steps")
    folder.cut_after(env_steps)  # before the tracker opens metrics.jsonl: this replaces the file
    time_s = counters.pop("time_s", 0.0)
    trainer = _prepare(folder, settings, learner, inference, time_s=time_s, env_steps=max(env_steps, 0))
    if checkpoint is not None:
        trainer.load_state_dict(checkpoint.components, counters)
    folder.write_config(OmegaConf.to_yaml(saved))
    manifest = folder.read_manifest()
    manifest["resumes"].append({"env_steps": max(env_steps, 0), "overrides": list(HydraConfig.get().overrides.task)})
    folder.write_manifest({**manifest, "is_finished": False})
    _run(trainer, settings)


def _bring_up_to_date(saved: DictConfig) -> bool:
    """Give a run from before the engine the keys it lacks; True when the run is of that time."""
    if "trainer" not in saved:
        return False  # no run of this command, as will be said
    is_older = "engine" not in saved
    if is_older:
        # Made before there was a choice, when the model itself was imagined in.
        saved.engine = {"_target_": "dima.run.engine.EngineConfig", **dataclasses.asdict(EngineConfig("eager"))}
    if "profile" not in saved:
        saved.profile = False
    return is_older


def _choose_checkpoint(folder: RunFolder, choice: int | str) -> Checkpoint | None:
    """The checkpoint to go on from; None when the run stopped before its first."""
    wanted = parse_checkpoint(choice)
    if wanted is None and not folder.checkpoints().steps():
        warn(f"{folder.path} holds no checkpoint: starting it from the beginning")
        return None
    return load_or_offer(folder, wanted, f"dima train resume={folder.path}")


def _prepare(
    folder: RunFolder,
    settings: TrainSettings,
    learner: Learner,
    inference: InferenceTraining | None,
    time_s: float,
    env_steps: int = 0,
) -> Trainer:
    """The trainer, reporting into `folder`; tells the person what is about to be done."""
    announce(
        "train",
        {
            "task": f"{learner.spec.env_id} ({learner.spec.num_agents} agents)",
            "model": type(learner.model).__name__,
            "parameters": learner.describe_parameters(),
            **announce_execution(describe_execution(settings, learner.model, inference)),
            "device": learner.device,
            "env steps": f"{env_steps} to {settings.env_steps}",
            "run folder": folder.path,
        },
    )
    container: Any = OmegaConf.to_container(load_config(folder.config_file))
    tracker = open_tracker(settings.tracking, folder.path, container, warn)
    store = folder.checkpoints(settings.trainer.keep_checkpoints)
    log = RunLog(folder, store, tracker, Progress(env_steps, settings.env_steps), time_s)
    try:
        return build_trainer(settings, learner, log, inference)
    except Exception:
        log.close()
        raise


def _run(trainer: Trainer, settings: TrainSettings) -> None:
    """Train, then print the table; every way out leaves the folder ready to go on from."""
    folder = trainer.log.folder
    try:
        _score_random_policy(trainer)
        trainer.run(settings.env_steps)
    except KeyboardInterrupt:
        trainer.log.close()
        say(f"\nstopped; go on with: dima train resume={folder.path}")
        raise
    except (ValueError, FloatingPointError) as error:
        trainer.log.close()
        if trainer.counters.env_steps == 0:
            raise
        last = folder.checkpoints().path(folder.checkpoints().steps()[-1])
        raise TrainingStopped(f"{error}; last good checkpoint: {last}") from error
    except Exception:
        trainer.log.close()
        raise
    finally:
        trainer.source.close()
    trainer.log.close()
    folder.write_manifest({**folder.read_manifest(), "is_finished": True})
    _print_result(folder)
    if trainer.profile is not None:
        _say_profile(trainer.profile)


def _say_profile(profile: RoundProfile) -> None:
    if profile.is_written:
        say(f"profile of one round: {profile.folder}/summary.txt and trace.json.gz (opens in ui.perfetto.dev)")
    else:
        warn("profile=true recorded nothing: there was no round in which the policy learned")


def _score_random_policy(trainer: Trainer) -> None:
    """The floor of the table: uniformly random actions on the seeds of every evaluation."""
    folder = trainer.log.folder
    scores = folder.read_scores()
    if "uniform_random" not in scores:
        agent = RandomAgent(trainer.replay.spec, trainer.randomness.fresh("uniform_random", "cpu"))
        scores["uniform_random"] = {"returns": trainer.evaluator.play(agent)}
        folder.write_scores(scores)


def _print_result(folder: RunFolder) -> None:
    scores = folder.read_scores()
    first, last = scores["evaluations"][0], scores["evaluations"][-1]
    print_scores(
        [
            (f"last evaluation ({last['env_steps']} env steps)", last["returns"]),
            ("untrained policy", first["returns"]),
            ("uniformly random", scores["uniform_random"]["returns"]),
        ]
    )
    say(f"run folder: {folder.path}")
