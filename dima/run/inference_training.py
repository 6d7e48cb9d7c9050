"""A state inferencer that goes on learning while a policy trains: every so many episodes, from the same replay.

GlobeDiff, Appendix D. Its statistics stay those of the data it was fitted on, so that old and new states keep one
scale; a share of the batches comes from those data (rehearsal), and a step that makes old states harder to infer is
taken back as far as needed. All three are ours.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dima.run.fit_data import fill, split
from dima.run.inference_config import InferenceTrainingConfig, describe_inference
from dima.run.metrics import RoundMetrics
from dima.run.optimize import PartOptimizer
from dima.run.parameters import load_weights
from dima.run.runtime import Randomness
from dima.run.step_back import copy_state, step_back
from imagination.belief import Belief
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset, read_dataset
from worldmodel.history import infer_for_agents, segment_history
from worldmodel.inference.learned import LearnedInference
from worldmodel.replay import Replay
from worldmodel.types import EnvSpec, Segment

_MEASURED_STATES = 512
"""Held-out states on which the error is followed."""

_CHECKED_STATES = 2048
"""Held-out states on which a step is judged."""


class InferenceTraining:
    """Owns the inferencer of a training run."""

    def __init__(self, config: InferenceTrainingConfig, spec: EnvSpec, randomness: Randomness) -> None:
        """Build the inferencer that `config.fit` describes, untrained until weights are loaded, and read its data.

        Raises:
            ConfigError: when the data it was fitted on are asked for and not there, or are others by now.
        """
        assert config.fit is not None
        self.config = config
        self.fit = config.fit
        self.inference: LearnedInference = config.fit.inference.build(spec)
        self.inference.to(randomness.device)
        self.inference.train(False)
        self._randomness = randomness
        self.episodes = 0
        """Since the last update."""
        self._slow_down()
        self.optimizer = PartOptimizer("inference", self.inference)
        self._old: Replay | None = None
        self._held_out: Segment | None = None
        self._checked: Segment | None = None
        self._fitted_error: float | None = None
        """On `_checked`, of the inferencer as it was fitted."""
        if config.updates:
            self._read_old_data(spec)

    @property
    def belief(self) -> Belief:
        """How evaluations act on it."""
        return Belief(self.inference, self.config.combine, self.config.samples)

    def describe(self) -> dict[str, Any]:
        """What the manifest keeps."""
        return {
            **describe_inference(self.config.name or "", self.inference),
            "run": self.config.run,
            "combine": self.config.combine,
            "samples": self.config.samples,
        }

    def after_episodes(self, ended: int, replay: Replay, metrics: RoundMetrics) -> None:
        """Count `ended` episodes, and learn from `replay`, once, when enough have come together."""
        self.episodes += ended
        if self.episodes < self.config.every_episodes or not self.config.updates:
            return
        self.episodes %= self.config.every_episodes
        with metrics.timed("inference"):
            metrics.put("inference/new_error_before", self._error(self._draw(replay, _MEASURED_STATES, fresh=True)))
            if self.config.old_tolerance is not None and self._checked is not None:
                self._learn_guarded(replay, metrics, self._checked, self.config.old_tolerance)
            else:
                self._learn(replay, metrics)
            self.measure(metrics)

    def measure(self, metrics: RoundMetrics) -> None:
        """Report the error of one draw on held-out states of the data it was fitted on, in standard deviations."""
        if self._held_out is not None:
            metrics.put("inference/old_error", self._error(self._held_out))

    def _learn_guarded(self, replay: Replay, metrics: RoundMetrics, old: Segment, tolerance: float) -> None:
        """Learn, and keep as much of the step as leaves `old` states inferred as well as by the fit."""
        if self._fitted_error is None:
            self._fitted_error = self._error(old)
        allowed, before = (1 + tolerance) * self._fitted_error, copy_state(self.inference)
        self._learn(replay, metrics)
        metrics.put("inference/kept_step", step_back(self.inference, before, lambda: self._error(old) <= allowed))

    def _learn(self, replay: Replay, metrics: RoundMetrics) -> None:
        generator = self._randomness.generator("inference")
        self.inference.train(True)
        for update in range(self.config.updates):
            # Batches of old data spread evenly: in update u where floor(u * share) moves on.
            share = self.config.rehearsal
            is_old = int((update + 1) * share) > int(update * share)
            source = self._old if is_old and self._old is not None else replay
            batch = self._draw(source, self.inference.optim.batch_size)
            metrics.add("inference", self.optimizer.update(batch, generator))
        self.optimizer.require_finite()
        self.inference.train(False)

    def _draw(self, replay: Replay, rows: int, *, fresh: bool = False) -> Segment:
        """Segments for one batch; `fresh`: from a stream that training does not notice."""
        name = "inference/measured" if fresh else "inference/batches"
        generator = self._randomness.fresh(name) if fresh else self._randomness.generator(name)
        part = self.inference
        return replay.sample(rows, part.segment_length, burn_in=part.burn_in, generator=generator)

    @torch.no_grad()
    def _error(self, segment: Segment) -> float:
        """Mean squared error of one draw, all agents inferring, in units of the fit's standard deviations."""
        history = segment_history(segment, self.inference.history_steps)
        true = segment.state[:, self.inference.history_steps]
        generator = self._randomness.fresh("inference/measured")
        drawn = infer_for_agents(self.inference, history, true, num_samples=1, generator=generator)[0]
        scale: Tensor = self.inference.state_norm.scale
        return float(((drawn - true[:, None]) * scale).square().mean())

    def _slow_down(self) -> None:
        """Go on from the learning rate that the fit ended with."""
        optim = self.inference.optim
        rate = optim.learning_rate * self.fit.final_learning_rate * self.config.learning_rate
        self.inference.optim = dataclasses.replace(optim, learning_rate=rate)

    def _read_old_data(self, spec: EnvSpec) -> None:
        path = Path(self.fit.data)
        if not path.exists():
            if self.config.rehearsal == 0:
                return
            raise ConfigError(
                f"inference.rehearsal = {self.config.rehearsal} needs the data of {self.config.run}, and {path} is not"
                " there; put it back, or, beginning a run, say inference.rehearsal=0"
            )
        dataset = read_dataset(path)
        self._require_same_data(dataset)
        training, held_out = split(dataset, self.fit)
        device = self._randomness.device
        self._old = fill(training, spec, device)
        if held_out:
            unseen = fill(held_out, spec, device)
            self._held_out = self._draw(unseen, _MEASURED_STATES, fresh=True)
            self._checked = self._draw(unseen, _CHECKED_STATES, fresh=True)

    def _require_same_data(self, dataset: Dataset) -> None:
        """Refuse data recollected at the same place: rehearsal and `old_error` would be of other episodes."""
        expected = self.config.fingerprint
        if expected is not None and dataset.fingerprint != expected:
            raise ConfigError(
                f"{dataset.path} is not the dataset that {self.config.run} was fitted on: its fingerprint is"
                f" {dataset.fingerprint}, expected {expected}; put that one back (or move this one away: with"
                " inference.rehearsal=0 none is needed)"
            )

    def state_dict(self) -> dict[str, Any]:
        """Weights, statistics, optimiser, and the episodes counted."""
        return {
            "model": self.inference.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "episodes": self.episodes,
            "fitted_error": self._fitted_error,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to where `state_dict` was called."""
        self.load_weights(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.episodes = state["episodes"]
        self._fitted_error = state.get("fitted_error")  # runs before there was a guard: as of their next update

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Take weights and statistics, of a fit or of a checkpoint.

        Raises:
            ValueError: when they are of other sizes.
        """
        load_weights(lambda: self.inference.load_state_dict(weights))
