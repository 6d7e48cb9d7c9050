"""What `dima infer` is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from dima.run.runtime import DeviceChoice, derive_seed
from dima.run.saved_inference import GIVEN
from worldmodel.config import Config

ENOUGH_EPISODES = 10
"""From so many held-out episodes on, `resample: auto` draws episodes; with fewer, their intervals mean little."""


@dataclasses.dataclass(frozen=True)
class InferSettings(Config):
    """Everything that `dima infer` is told."""

    run: str | None
    """The run folder of `dima fit inference=...`, or `oracle` or `joint`."""
    runs: tuple[str, ...] | None
    """Several, to be compared."""
    data: str
    """The dataset folder."""
    states: int
    """B: moments at which states are inferred."""
    samples: int
    """M: draws for each."""
    held_out: float
    """Share of the episodes to measure on, where no run has a split of its own."""
    resamples: int
    """Of the bootstrap."""
    resample: Literal["auto", "episodes", "moments"]
    """What the bootstrap draws: whole episodes or single moments; auto: episodes where at least 10 are held out."""
    embedding_points: int
    """States in the t-SNE embedding at most, true and inferred ones together; 0: no embedding."""
    latency_decisions: int
    """Decisions that are timed; 0: none."""
    checkpoint: int | str
    """`latest`, or the updates of a checkpoint."""
    seed: int
    """Of moments, noise and embedding."""
    device: DeviceChoice
    """Where networks live."""
    num_threads: int | None
    """CPU threads of torch."""
    out: str | None
    """Where to write."""

    def validate(self) -> None:
        """Refuse what cannot be measured."""
        self.require((self.run is None) != (self.runs is None), "run", "a run folder, or several with runs=[..]")
        runs = self.runs or ()
        self.require(self.runs is None or len(runs) > 0, "runs", "at least one run folder")
        self.require(len(set(map(_identity, runs))) == len(runs), "runs", "different run folders")
        self.require(self.states >= 1, "states", "at least 1")
        self.require(self.samples >= 2, "samples", "at least 2: spread cannot be seen in fewer")
        self.require(0 < self.held_out < 1, "held_out", "a share between 0 and 1")
        self.require(self.resamples >= 100, "resamples", "at least 100")
        for name in ("embedding_points", "latency_decisions", "seed"):
            self.require(getattr(self, name) >= 0, name, "at least 0")
        self.require(self.num_threads is None or self.num_threads >= 1, "num_threads", "null or at least 1")

    @property
    def sources(self) -> tuple[str, ...]:
        """All that is measured, as it was named."""
        return self.runs if self.runs is not None else (self.run or "",)

    def generator(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator for the stream `name`."""
        return torch.Generator(device).manual_seed(derive_seed(self.seed, f"infer/{name}"))


def _identity(run: str) -> str:
    return run if run in GIVEN else str(Path(run).resolve())
