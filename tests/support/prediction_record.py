"""A made-up but plausible `prediction.json` in every form that the schema allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ALL_ORDERS = ("descending", "ascending", "cycle", "random")

LEVELS: Mapping[str, float] = {"descending": 0.52, "ascending": 0.47, "cycle": 0.33, "random": 0.31, "any": 0.35}
"""Error per step that each order's curve tends to, in standard deviations."""


def prediction_record(
    *,
    orders: Sequence[str] = ALL_ORDERS,
    horizon: int = 20,
    samples: int = 10,
    segments: int = 100,
    num_agents: int = 2,
    with_state: bool = True,
    with_gains: bool = True,
    level: float = 1.0,
    linear_growth: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """A record of `orders`; errors scale with `level`, the linear model's grows by the share `linear_growth` a step."""
    draw = np.random.default_rng(seed)
    marks = sorted({mark for mark in (1, 5, 15, 20, horizon) if mark <= horizon})

    def curve(asymptote: float, growth: float = 0.0) -> dict[str, Any]:
        return _curve(draw, asymptote * level, growth, horizon, segments, marks)

    def order(asymptote: float) -> dict[str, Any]:
        spread = [_spread(draw, samples, segments, marks) if samples > 1 else None for _ in range(2)]
        return {
            "state": curve(asymptote) if with_state else None,
            "obs": curve(asymptote * 0.9),
            "reward": curve(asymptote * 0.6),
            "termination": _termination(),
            "spread": {"state": spread[0] if with_state else None, "obs": spread[1]} if samples > 1 else None,
            **(_gains(draw, num_agents) if with_gains else {"action_gain": None}),
        }

    def baselines(scale: float) -> dict[str, Any]:
        return {
            "persistence": curve(1.15 * scale),
            "no_action": curve(0.68 * scale),
            "linear": curve(0.55 * scale, linear_growth),
        }

    return _what_was_run(num_agents, orders[0], seed) | {
        "horizon": horizon,
        "segments": segments,
        "complete_segments": segments,
        "samples": samples,
        "marks": marks,
        "units": _units(with_state),
        "orders": {name: order(LEVELS.get(name, 0.4)) for name in orders},
        "differences": _differences(orders, marks, with_state),
        "floor": {"obs": curve(0.05) if with_state else None},
        "baselines": baselines(1.0 if with_state else 0.9),
        "baselines_obs": baselines(0.9),
        "baselines_reward": baselines(0.6),
        "no_action": "hidden",
        "action_gain": _how_gains_were_measured(with_gains),
        "fan": _fan(draw, orders, horizon, samples) if with_state else None,
        "runtime": {"predict_s": 31.0, "imagined_steps": len(orders) * samples * segments * horizon},
    }


def _what_was_run(num_agents: int, order: str, seed: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "run": "runs/mamujoco/halfcheetah-2x3/dima/seed0",
        "checkpoint": 20000,
        "env": f"mamujoco/halfcheetah-{num_agents}x{max(6 // num_agents, 1)}",
        "versions": {"mujoco": "3.3.0", "body": "HalfCheetah-v5"},
        "model": "DimaWorldModel",
        "options": {
            "reveal": "progressive",
            "num_denoising_steps": 4,
            "target": "state",
            "sigma_offset_noise": 0.3,
            "order": order,
        },
        "data": {"path": "data/mixture", "fingerprint": "5f1e", "episodes": 4, "steps": 4000, "which": "held_out"},
        "seed": seed,
    }


def _units(with_state: bool) -> dict[str, Any]:
    return {
        "normalized": "standard deviations of each dimension in the dataset",
        "raw": "the environment's own units",
        "state": {"std": [1.0] * 17, "constant": []} if with_state else None,
        "obs": {"std": [1.0] * 17, "constant": [3]},
        "reward": {"std": 2.5},
    }


def _differences(orders: Sequence[str], marks: Sequence[int], with_state: bool) -> dict[str, Any]:
    def at_marks() -> dict[str, Any]:
        return {str(mark): {"mean": -0.4, "ci95": [-0.7, -0.1]} for mark in marks}

    return {
        f"{later} - {earlier}": {
            "state": at_marks() if with_state else None,
            "obs": at_marks(),
            "reward": at_marks(),
        }
        for index, later in enumerate(orders)
        for earlier in orders[:index]
    }


def _how_gains_were_measured(with_gains: bool) -> dict[str, Any]:
    if with_gains:
        return {"perturbation_std": 0.3, "states": 64, "samples": 8, "note": None}
    note = "the environment cannot be put back into a state"
    return {"perturbation_std": None, "states": None, "samples": None, "note": note}


def _curve(
    draw: np.random.Generator, asymptote: float, growth: float, horizon: int, segments: int, marks: Sequence[int]
) -> dict[str, Any]:
    steps = np.arange(1, horizon + 1)
    mean = asymptote * (1 - np.exp(-(steps + 0.5) / 6)) * (1 + growth) ** steps
    errors = mean * draw.lognormal(-0.1, 0.45, (segments, 1)) * draw.lognormal(0, 0.1, (segments, horizon))
    sums = errors.cumsum(axis=1)

    def intervals(values: np.ndarray) -> np.ndarray:
        half = 1.96 * values.std(axis=0) / np.sqrt(segments)
        return np.stack([values.mean(axis=0) - half, values.mean(axis=0) + half], axis=1)

    def at_marks(values: np.ndarray) -> dict[str, Any]:
        return {str(mark): values[mark - 1].tolist() for mark in marks}

    return {
        "e": errors.mean(axis=0).tolist(),
        "e_ci95": intervals(errors).tolist(),
        "e_std": errors.std(axis=0).tolist(),
        "cumulative": at_marks(sums.mean(axis=0)),
        "cumulative_std": at_marks(sums.std(axis=0)),
        "ci95": at_marks(intervals(sums)),
        "raw": {"e": (2 * errors.mean(axis=0)).tolist(), "cumulative": at_marks(2 * sums.mean(axis=0))},
    }


def _spread(draw: np.random.Generator, samples: int, segments: int, marks: Sequence[int]) -> dict[str, Any]:
    """A model that is too sure the later the step: the truth's rank is then often the first or the last."""
    ranks: dict[str, Any] = {}
    for mark in marks:
        outer = 1 + mark / 8
        shares = np.array([outer, *[1.0] * (samples - 1), outer])
        histogram = draw.multinomial(segments, shares / shares.sum())
        ranks[str(mark)] = {"histogram": histogram.tolist(), "p_value": float(np.exp(-mark / 3))}
    return {
        "crps": {str(mark): 0.1 + 0.01 * mark for mark in marks},
        "crps_ci95": {str(mark): [0.08 + 0.01 * mark, 0.12 + 0.01 * mark] for mark in marks},
        "energy_score": {str(mark): 0.15 + 0.01 * mark for mark in marks},
        "ranks": ranks,
        "spread_skill": {str(mark): 1 / (1 + mark / 30) for mark in marks},
    }


def _gains(draw: np.random.Generator, num_agents: int) -> dict[str, Any]:
    gains = draw.uniform(0.1, 1.05, num_agents)
    half = draw.uniform(0.02, 0.08, num_agents)
    return {
        "action_gain": gains.tolist(),
        "action_gain_ci95": np.stack([gains - half, gains + half], axis=1).tolist(),
        "action_gain_r2": (0.9 * np.minimum(gains, 1)).tolist(),
    }


def _termination() -> dict[str, Any]:
    bins = [{"predicted": 0.05 + 0.1 * index, "observed": 0.1 * index, "count": 20} for index in range(10)]
    return {
        "auc": None,
        "brier": 0.01,
        "ece": 0.02,
        "base_rate": 0.0,
        "mean_predicted": 0.02,
        "positives": 0,
        "steps": 2000,
        "bins": bins,
    }


def _fan(draw: np.random.Generator, orders: Sequence[str], horizon: int, samples: int) -> dict[str, Any]:
    """Four waves of different size; the imagined ones drift off like random walks, differently fast by order."""
    time = np.arange(horizon + 1)
    truth = [size * np.sin(time / pace + pace) for size, pace in ((2.0, 2.0), (8.0, 3.0), (0.4, 5.0), (1.0, 1.5))]

    def walks(wave: np.ndarray, drift: float) -> list[list[float]]:
        steps = draw.normal(0, drift * np.ptp(wave) / 10, (samples, horizon + 1))
        steps[:, 0] = 0
        return (wave + steps.cumsum(axis=1)).tolist()

    return {
        "segment": {"episode": 1, "start": 412},
        "dims": [8, 9, 2, 13],
        "truth": [wave.tolist() for wave in truth],
        "orders": {name: [walks(wave, LEVELS.get(name, 0.4)) for wave in truth] for name in orders},
        "unit": "environment",
    }
