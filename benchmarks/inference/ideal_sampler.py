"""What K denoising steps can do at best without a latent: the mixtures of the study, sampled with the exact denoiser.

    python benchmarks/inference/ideal_sampler.py OUT.md

Nothing is learned: the expected clean state given a noisy one is a formula for a mixture of Gaussians. What is left is
the error of K Gaussian steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from mixture_cells import DIMENSIONS, MODES, Cell
from mixture_study import toy

from envs.toy.mixture import MixtureSystem
from worldmodel.inference.noise import ScheduleKind, make_betas

ROWS = 20_000
STEPS = (5, 10, 20)


def main() -> None:
    """Write the table."""
    lines = [
        "| modes, dimensions | " + " | ".join(f"{kind}, K = {k}" for kind in ("vp", "cosine") for k in STEPS) + " |"
    ]
    lines.append("|---" * 7 + "|")
    for dim in DIMENSIONS:
        for modes in MODES:
            cells = [measure(Cell(num_modes=modes, state_dim=dim), kind, k) for kind in ("vp", "cosine") for k in STEPS]
            figures = [f"{ratio:.2f}, {weight_error:.1f}" for ratio, weight_error in cells]
            lines.append(f"| {modes}, {dim} | " + " | ".join(figures) + " |")
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def measure(cell: Cell, kind: ScheduleKind, num_steps: int) -> tuple[float, float]:
    """(nearest-mode error over the perfect sampler's, largest error of a mode's weight in points)."""
    system, env = MixtureSystem(toy(cell)), toy(cell)
    rng = np.random.default_rng(0)
    mean, std = _units(system, env.std, rng)
    centres = (system.centres - mean) / std
    beta = make_betas(kind, num_steps).numpy()
    kept = np.cumprod(1 - beta)
    x = rng.standard_normal((ROWS, cell.state_dim))
    for k in reversed(range(num_steps)):
        before = kept[k - 1] if k else 1.0
        clean = _expected(x, centres, system.weight, env.std / std, kept[k])
        noisy_weight = np.sqrt(1 - beta[k]) * (1 - before) / (1 - kept[k])
        x = np.sqrt(before) * beta[k] / (1 - kept[k]) * clean + noisy_weight * x
        x += np.sqrt((1 - before) / (1 - kept[k]) * beta[k]) * rng.standard_normal(x.shape)
    distance = ((x[:, None] * std + mean - system.centres) ** 2).sum(axis=-1)
    share = np.bincount(distance.argmin(axis=1), minlength=cell.num_modes) / ROWS
    ratio = distance.min(axis=1).mean() / (cell.state_dim * env.std**2)
    return float(ratio), float(100 * np.abs(share - system.weight).max())


def _units(system: MixtureSystem, std: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the states over all observations, as a model standardises them."""
    context = rng.uniform(-1.0, 1.0, (ROWS, system.context_gain.shape[1]))
    mode = rng.choice(len(system.weight), ROWS, p=system.weight)
    state = system.centres[mode] + context @ system.context_gain.T
    state += std * rng.standard_normal(state.shape)
    return state.mean(axis=0), state.std(axis=0)


def _expected(noisy: np.ndarray, centres: np.ndarray, weight: np.ndarray, std: np.ndarray, kept: float) -> np.ndarray:
    """E[clean | noisy] [R,S] for modes at `centres` [J,S] with this `std` [S] and `weight` [J]."""
    variance = kept * std**2 + 1 - kept
    away = noisy[:, None] - np.sqrt(kept) * centres  # [R, J, S]
    log_share = np.log(weight) - 0.5 * (away**2 / variance).sum(axis=-1)
    share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return np.einsum("rj,rjs->rs", share, centres + np.sqrt(kept) * std**2 / variance * away)


if __name__ == "__main__":
    main()
