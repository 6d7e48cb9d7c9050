"""What `dima train` is told of inferring states at execution, and `dima evaluate` of how inferred ones are acted on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from dima.run.fit_settings import FitSettings
from imagination.belief import Combine
from worldmodel.config import Config
from worldmodel.inference.given import Oracle
from worldmodel.protocol import StateInference


@dataclasses.dataclass(frozen=True)
class InferenceTrainingConfig(Config):
    """How a state inferencer goes on learning while a policy trains, and how evaluations act on it."""

    run: str | None = None
    """A run of `dima fit inference=...` to begin from; null: no inference, evaluations act on the true state."""
    every_episodes: int = 50
    """Episodes between updates (GlobeDiff, Appendix D); where more end in one round, as many parallel environments let
    them, there is still one update: all that are due would learn from the same replay."""
    updates: int = 200
    """Optimiser steps each time; 0: the inferencer stays as it was fitted."""
    rehearsal: float = 0.5
    """Share of the batches drawn from the data that it was fitted on, so that these are not forgotten."""
    old_tolerance: float | None = 0.0
    """By how much, relatively, the error on held-out states of those data may come to exceed that of the fit: an update
    that goes beyond is taken back, by halves. None: no limit, as where the fit held nothing out or its data went."""
    learning_rate: float = 1.0
    """Relative to the rate that its fit ended with."""
    combine: Combine = "draw"
    """What becomes of the samples at execution: one `draw` (the paper's), the `mean` of their actions, or `votes`."""
    samples: int = 1
    """Draws an agent and step; 1 with combine=draw."""
    name: str | None = None
    """What `run` learned; filled in at the start, so that a run needs no other folder later."""
    checkpoint: int | None = None
    """Updates after which it was taken from `run`; filled in at the start (None in older runs)."""
    fingerprint: str | None = None
    """Of the dataset that it was fitted on; filled in at the start (None in older runs: what is there is taken)."""
    fit: FitSettings | None = None
    """What `run` was told; filled in at the start."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.every_episodes >= 1, "every_episodes", "at least 1")
        self.require(self.updates >= 0, "updates", "at least 0")
        self.require(0 <= self.rehearsal <= 1, "rehearsal", "a share from 0 to 1")
        tolerance = self.old_tolerance
        self.require(tolerance is None or 0 <= tolerance < math.inf, "old_tolerance", "at least 0, or null")
        self.require(self.learning_rate > 0, "learning_rate", "above 0; updates=0 keeps it as it was fitted")
        is_one = self.combine == "draw"
        fits = self.samples == 1 if is_one else self.samples >= 2
        self.require(fits, "samples", "1 with combine=draw" if is_one else f"at least 2 with combine={self.combine}")


def describe_inference(name: str, inference: StateInference) -> dict[str, Any]:
    """The kind of an inferencer and what it reads at execution, so that only like is compared with like.

    `auxiliary` is `own` or `joint` observations, or `state` of an oracle, whatever observations it also checks.
    """
    auxiliary = "state" if isinstance(inference, Oracle) else inference.auxiliary
    return {"kind": name, "auxiliary": auxiliary, "history_steps": inference.history_steps}
