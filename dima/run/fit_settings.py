"""What `dima fit` is told, and what of it a resumed fit may change."""

from __future__ import annotations

import dataclasses
from typing import Any

from dima.run.fitter import FitPlan, Learned
from dima.run.optimize import LearningRateDecay
from dima.run.runtime import DeviceChoice
from dima.run.tracking import TrackingConfig
from dima.run.trainer_config import Updates
from envs.base import EnvConfig
from worldmodel.config import Config
from worldmodel.protocol import InferenceConfig, WorldModelConfig

FREE_ON_RESUME = ("updates", "log_every", "checkpoint_every", "keep_checkpoints", "device", "num_threads", "tracking")
"""What a resumed fit may change."""


@dataclasses.dataclass(frozen=True)
class FitSettings(Config):
    """Everything that `dima fit` is told."""

    world_model: Any
    """A `WorldModelConfig`; null where a state inferencer is fitted."""
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
    inference: Any = None
    """An `InferenceConfig` that learns; null where a world model is fitted (and by default: older fits have none)."""

    def validate(self) -> None:
        """Refuse what cannot be fitted."""
        self.require(callable(getattr(self.learner_config, "build", None)), self.learner, "a config with build(spec)")
        self.require(isinstance(self.env, EnvConfig), "env", "a config with build(), as a whole dataset.json holds it")
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
    def learner(self) -> Learned:
        """What is fitted; the name of its weights in checkpoints and of its figures in metrics.jsonl."""
        return "world_model" if self.inference is None else "inference"

    @property
    def learner_config(self) -> WorldModelConfig | InferenceConfig:
        """The config of what is fitted."""
        return self.world_model if self.inference is None else self.inference

    @property
    def plan(self) -> FitPlan:
        """How much is done."""
        decay = LearningRateDecay(self.final_learning_rate, self.decay_from)
        return FitPlan(self.updates, decay, self.log_every, self.held_out_batches, self.checkpoint_every)
