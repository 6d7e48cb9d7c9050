"""What `dima predict` is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from dima.run.runtime import DeviceChoice, derive_seed
from worldmodel.config import Config


@dataclasses.dataclass(frozen=True)
class PredictSettings(Config):
    """Everything that `dima predict` is told."""

    run: str | None
    """The run folder of `dima train` or `dima fit`."""
    runs: tuple[str, ...] | None
    """Several, to be compared."""
    data: str
    """The dataset folder."""
    orders: tuple[str | tuple[int, ...], ...] | None
    """Orders of the agents to compare; null: every order with a name, for models that know orders."""
    horizon: int
    """H: imagined steps."""
    segments: int
    """B: stretches of real episodes."""
    samples: int
    """M: draws for each."""
    held_out: float
    """Share of the episodes to measure on."""
    gain_states: int
    """Moments at which actions are changed; 0: none."""
    gain_samples: int
    """Draws for each moment."""
    perturbation_std: float
    """Standard deviation of the change of an agent's action."""
    resamples: int
    """Of the bootstrap."""
    resample: Literal["segments", "episodes"]
    """What the bootstrap draws: segments, or whole episodes with the segments in them."""
    num_denoising_steps: int | None
    """Another number of noise levels than the model's own."""
    solver: str | None
    """Another solver than the model's own."""
    checkpoint: int | str
    """`latest`, or the number of a checkpoint."""
    seed: int
    """Of segments, noise and perturbations."""
    device: DeviceChoice
    """Where the model lives."""
    num_threads: int | None
    """CPU threads of torch; null: as in training."""
    out: str | None
    """Where to write."""

    def validate(self) -> None:
        """Refuse what cannot be measured."""
        self.require((self.run is None) != (self.runs is None), "run", "a run folder, or several with runs=[..]")
        runs = self.runs or ()
        self.require(self.runs is None or len(runs) > 0, "runs", "at least one run folder")
        self.require(len({Path(run).resolve() for run in runs}) == len(runs), "runs", "different run folders")
        orders = self.orders
        once = orders is None or len(set(orders)) == len(orders) > 0
        self.require(once, "orders", "at least one order, none twice")
        for name in ("horizon", "segments", "samples", "gain_samples"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(0 < self.held_out < 1, "held_out", "a share between 0 and 1")
        self.require(self.gain_states >= 0, "gain_states", "at least 0")
        self.require(self.perturbation_std > 0, "perturbation_std", "above 0")
        self.require(self.resamples >= 100, "resamples", "at least 100")
        self.require(self.seed >= 0, "seed", "at least 0")

    def generator(self, name: str) -> torch.Generator:
        """A fresh generator for the stream `name`."""
        return torch.Generator().manual_seed(derive_seed(self.seed, f"predict/{name}"))
