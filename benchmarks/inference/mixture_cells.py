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


MODES, DIMENSIONS, SEPARATIONS = (2, 4, 8), (4, 8), (10.0, 5.0, 20.0)

_GRID = [
    Cell(num_modes=modes, state_dim=dim, separation=separation)
    for separation in SEPARATIONS
    for dim in DIMENSIONS
    for modes in MODES
]
"""The sizes that samples are judged on, at the five steps of the paper."""

_WITHOUT_LATENT = [Cell(num_modes=modes, latent_dim=0) for modes in MODES]
_REGRESSION = [Cell(kind=kind, num_modes=modes) for kind in ("mlp", "vae") for modes in MODES]
_TWENTY_STEPS = [Cell(num_modes=modes, state_dim=dim, num_denoising_steps=20) for dim in DIMENSIONS for modes in MODES]
_STEPS = [Cell(num_denoising_steps=steps) for steps in (1, 2, 3, 8, 4, 6, 7)]
_OPTIONS = [
    Cell(kl_weight=0.001),
    Cell(kl_weight=0.1),
    Cell(schedule="cosine"),
    Cell(schedule="linear"),
    Cell(kl_weight=0.003),
    Cell(kl_weight=0.03),
    Cell(sampling_noise="literal"),
    Cell(ema_decay=0.995),
    Cell(latent_dim=4),
]
_SEEDS = [Cell(seed=seed) for seed in (1, 2)]

_HARDEST = [
    Cell(num_modes=8, kl_weight=0.003),
    Cell(num_modes=8, kl_weight=0.03),
    Cell(num_modes=8, kl_weight=0.02),
    Cell(num_modes=8, kl_weight=0.02, ema_decay=0.995),
    Cell(num_modes=8, kl_weight=0.1),
    Cell(num_modes=8, ema_decay=0.995),
    Cell(num_modes=8, updates=12_000),
    Cell(num_modes=8, channels=(32, 64, 128)),
]
"""What helps where the most modes share the fewest dimensions."""

CELLS: list[Cell] = list(
    dict.fromkeys(
        [*_GRID[:3], *_HARDEST, *_WITHOUT_LATENT[1:2], *_GRID[3:6], *_TWENTY_STEPS[:3], *_REGRESSION, *_OPTIONS[:5]]
        + [*_STEPS[:4], *_GRID, *_WITHOUT_LATENT, *_OPTIONS, *_STEPS, *_TWENTY_STEPS, *_SEEDS]
    )
)
