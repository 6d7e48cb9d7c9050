"""The cells of the mixture study: what is varied, the most telling first."""

from __future__ import annotations

import dataclasses

from worldmodel.inference.noise import SamplingNoise, ScheduleKind


@dataclasses.dataclass(frozen=True)
class Cell:
    """One inferencer on one mixture."""

    kind: str = "globediff"
    num_modes: int = 4
    state_dim: int = 4
    separation: float = 10.0
    num_denoising_steps: int = 5
    schedule: ScheduleKind = "vp"
    sampling_noise: SamplingNoise = "posterior"
    kl_weight: float = 0.01
    latent_dim: int = 16
    latent_layers: int = 3
    channels: tuple[int, ...] = (16, 32, 64)
    num_blocks: int = 1
    ema_decay: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 128
    updates: int = 6000
    seed: int = 0

    @property
    def name(self) -> str:
        """What differs from the first cell, in words."""
        plain = Cell()
        changes = [
            f"{field.name}={getattr(self, field.name)}".replace(" ", "")
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(plain, field.name)
        ]
        return " ".join(changes) or "base"


CELLS: list[Cell] = [
    Cell(),
    Cell(ema_decay=0.995),
    Cell(latent_dim=0),
    Cell(kl_weight=0.03),
    Cell(kl_weight=0.003),
]
