"""How a training run comes to its state inferencer: from a fit, or, when it goes on, from its own configuration.

What the fit was told is written into the run's configuration at its start, so that a run that has a checkpoint needs
the fit's folder no more.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dima.run.assemble import Learner
from dima.run.checkpoint import CheckpointError
from dima.run.console import warn
from dima.run.fit_settings import FREE_ON_RESUME
from dima.run.folder import RunFolder, RunFolderError
from dima.run.inference_training import InferenceTraining
from dima.run.saved_inference import SavedInference, open_inference
from dima.run.settings import TrainSettings, load_config, read_settings
from worldmodel.config import ConfigError


def begin_inference(config: DictConfig, settings: TrainSettings, learner: Learner) -> InferenceTraining | None:
    """The inferencer of the fit that `config.inference.run` names; what it was told is written into `config`.

    Raises:
        ConfigError: when that is no fit of an inferencer, one of another task, or its data are missing or others.
        RunFolderError, CheckpointError: when there is no such run, or it is damaged.
    """
    run = settings.inference.run
    if run is None:
        return None
    saved = open_inference(run, learner.spec, settings.env, learner.device, key="inference.run")
    if saved.path is None:
        raise ConfigError(f"inference.run = {run!r} learns nothing; expected a run of dima fit inference=...")
    OmegaConf.set_struct(config, False)
    config.inference.name = saved.name
    config.inference.checkpoint = saved.step
    config.inference.fingerprint = saved.fingerprint
    config.inference.fit = load_config(RunFolder.open(saved.path).config_file)
    return _with_weights_of(saved, read_settings(config), learner)


def resume_inference(
    settings: TrainSettings, learner: Learner, *, from_fit: bool, path: Path
) -> InferenceTraining | None:
    """The inferencer of the run at `path`, which goes on.

    Args:
        settings: of the run, as it was begun.
        learner: of the run, nothing drawn from its random numbers since it was built: as at the run's start.
        from_fit: the run has no checkpoint with weights in it and begins anew, with those of the fit.
        path: for messages.

    Raises:
        ConfigError: when the fit or its data are needed and missing, or are not those that the run was begun with.
    """
    told = settings.inference
    if told.run is None:
        return None
    if not from_fit:
        return InferenceTraining(told, learner.spec, learner.randomness)
    needs = f"{path} stopped before its first checkpoint and begins anew from inference.run = {told.run!r}"
    step = "latest" if told.checkpoint is None else told.checkpoint
    try:
        saved = open_inference(told.run, learner.spec, settings.env, learner.device, step, key="inference.run")
    except (RunFolderError, CheckpointError) as error:
        raise ConfigError(f"{needs}: {error}; put that back, or begin a new run") from error
    if not _is_same_fit(saved, settings):
        raise ConfigError(f"{needs}, which is another fit by now; put the first one back, or begin a new run")
    return _with_weights_of(saved, settings, learner)


def warn_where_nothing_is_learned(settings: TrainSettings, episode_steps: int) -> None:
    """Say so when a run of full-length episodes ends before the inferencer's first update."""
    told = settings.inference
    if told.run is None or told.updates == 0:
        return
    episodes = settings.trainer.num_episodes(settings.env_steps, episode_steps)
    if episodes >= told.every_episodes:
        return
    advice = f"inference.every_episodes={episodes} or less" if episodes else "more env_steps"
    warn(
        f"inference.every_episodes = {told.every_episodes}, but {settings.env_steps} env steps hold"
        f" {episodes} whole episodes of {episode_steps} steps: unless episodes end early the inferencer stays as it was"
        f" fitted; say {advice}, or inference.updates=0 if that is meant"
    )


def _with_weights_of(saved: SavedInference, settings: TrainSettings, learner: Learner) -> InferenceTraining:
    training = InferenceTraining(settings.inference, learner.spec, learner.randomness)
    training.load_weights(saved.inference.state_dict())
    return training


def _is_same_fit(saved: SavedInference, settings: TrainSettings) -> bool:
    """Whether a run began with this fit, which may have been continued since."""
    told, now = settings.inference, saved.settings
    assert told.fit is not None
    if now is None or (told.fingerprint is not None and told.fingerprint != saved.fingerprint):
        return False
    free = {name: getattr(told.fit, name) for name in FREE_ON_RESUME}
    return dataclasses.replace(now, **free) == told.fit
