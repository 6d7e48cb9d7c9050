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
    kl_weight: float = 0.08
    latent_dim: int = 16
    latent_layers: int = 3
    channels: tuple[int, ...] = (16, 32, 64)
    num_blocks: int = 1
    ema_decay: float = 0.995
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


MODES, DIMENSIONS, SEPARATIONS = (2, 4, 8), (4, 8), (10.0, 5.0, 20.0)

_GRID = [
    Cell(num_modes=modes, state_dim=dim, separation=separation, updates=6000 if separation == 10.0 else 3000)
    for separation in SEPARATIONS
    for dim in DIMENSIONS
    for modes in MODES
]
"""The sizes that samples are judged on, at the five steps of the paper; half the updates where only bounds count."""

_WITHOUT_LATENT = [Cell(num_modes=modes, latent_dim=0) for modes in (4, 8, 2)]
_REGRESSION = [Cell(kind=kind, num_modes=modes) for modes in (4, 8, 2) for kind in ("mlp", "vae")]
_TWENTY_STEPS = [Cell(num_modes=modes, state_dim=dim, num_denoising_steps=20) for dim in DIMENSIONS for modes in MODES]
_STEPS = [Cell(num_denoising_steps=steps) for steps in (1, 2, 3, 8, 4, 6, 7)]
_KL_WEIGHT = [
    *(Cell(num_modes=8, kl_weight=weight, ema_decay=0.0) for weight in (0.012, 0.04, 0.08, 0.12)),
    *(Cell(state_dim=8, kl_weight=weight) for weight in (0.12, 0.16)),
    *(Cell(num_modes=modes, kl_weight=0.04, ema_decay=0.0) for modes in (2, 4)),
]
_OPTIONS = [
    Cell(schedule="cosine"),
    Cell(kl_weight=0.004),
    Cell(schedule="linear"),
    Cell(sampling_noise="literal"),
    Cell(latent_dim=4),
]
_LONGER = [Cell(separation=20.0)]
"""Where half the updates left a weight 5.8 points off."""
_SEEDS = [Cell(num_modes=8, seed=seed) for seed in (1, 2)]
CELLS: list[Cell] = list(
    dict.fromkeys(
        [_GRID[4], *_GRID[:2], _GRID[5], *_TWENTY_STEPS[1:2], *_WITHOUT_LATENT[:1], *_REGRESSION[:2], *_STEPS[:2]]
        + [_GRID[8], _GRID[14], _GRID[3], *_TWENTY_STEPS[2:3], *_OPTIONS[:2], *_WITHOUT_LATENT, *_REGRESSION]
        + [*_GRID[::-1], *_LONGER, *_STEPS, *_TWENTY_STEPS, *_OPTIONS, *_KL_WEIGHT, *_SEEDS]
    )
)
