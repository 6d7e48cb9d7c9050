"""A whole record of `dima infer`, made without measuring anything."""

from __future__ import annotations

from typing import Any

import numpy as np

SAMPLES, STATES, DIMS, AGENTS = 8, 12, 3, 2


def _estimate(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": [0.9 * value, 1.1 * value]}


def _scores(error: float, *, with_intervals: bool = True) -> dict[str, Any]:
    def by_dimension(value: float) -> dict[str, Any]:
        lists: dict[str, Any] = {"value": [value] * DIMS}
        if with_intervals:
            lists["ci95"] = [[0.9 * value, 1.1 * value]] * DIMS
        return {**_estimate(value), "by_dimension": lists}

    return {
        "error_mean": by_dimension(error),
        "error_draw": by_dimension(2 * error),
        "energy_score": _estimate(error / 2),
        "coverage": {"50": by_dimension(0.4), "90": by_dimension(0.8)},
        "ranks": {"histogram": [2, 0, 1, 2, 1, 2, 1, 1, 2], "p_value": 0.5},
    }


def _quality(error: float) -> dict[str, Any]:
    return {
        "scores": _scores(error),
        "by_agent": [_scores(error, with_intervals=False) for _ in range(AGENTS)],
        "modes": {
            "nearest_error": _estimate(0.1),
            "shares": [0.4, 0.6],
            "weight_error": _estimate(0.05),
            "weight_error_per_state": _estimate(0.2),
        },
    }


def _run(kind: str, auxiliary: str, reads: str, error: float) -> dict[str, Any]:
    timing = {"environments": 1, "decisions": 5, "wall_ms": 1.5, "cpu_ms": 1.2}
    latent = {name: _estimate(0.3) for name in ("kl", "error_prior", "error_posterior", "gap")}
    return {
        "kind": kind,
        "run": None if kind in ("oracle", "joint") else f"runs/{kind}",
        "checkpoint": 6,
        "auxiliary": auxiliary,
        "history_steps": 0,
        "num_parameters": 100,
        "reads": reads,
        **_quality(error),
        "latent": {**latent, "repeats": 16} if kind == "globediff" else None,
        "note": None,
        "latency": {"one": timing, "batch": {**timing, "environments": 64}},
    }


def inference_record() -> dict[str, Any]:
    """Two learned runs, the oracle and the joint observation, of two agents on a task whose law is known."""
    own, joint = "own observation", "all agents' observations"
    nothing = {"scores": None, "by_agent": None, "modes": None, "note": "infers no state"}
    draw = np.random.default_rng(0)
    step = np.arange(STATES)

    def cloud() -> list[list[float]]:
        return draw.normal(size=(STATES, 2)).tolist()

    def bands() -> list[list[list[float]]]:
        return np.sort(draw.normal(size=(3, 20, 5)), axis=-1).tolist()

    return {
        "schema": 1,
        "env": "toy/mixture-2x1",
        "versions": {},
        "agents": AGENTS,
        "data": {"path": "data", "fingerprint": "0a", "episodes": 3, "steps": 60, "which": "held_out"},
        "seed": 0,
        "states": STATES,
        "samples": SAMPLES,
        "bootstrap": {"resamples": 100, "by": "moments"},
        "units": {"errors": "standard deviations", "std": [1.0, 1.0, 0.0, 2.0], "dims": [0, 1, 3]},
        "attainable_coverage": {"50": 0.5, "90": 7 / 9},
        "hardware": {"device": "cpu", "gpu": None, "cpu": "some processor", "cores": 2, "num_threads": 1},
        "runs": {
            "globediff": _run("globediff", "own", own, 0.4),
            "mlp": _run("mlp", "own", own, 0.6),
            "oracle": _run("oracle", "state", "the true state", 0.0),
            "joint": {**_run("joint", "joint", joint, 0.0), **nothing},
        },
        "baselines": {
            "mean": {"reads": None, "training_steps": 240, **_quality(1.0)},
            f"linear, {own}": {"reads": own, "training_steps": 240, **_quality(0.7)},
            "exact law": {"reads": None, "training_steps": 0, **_quality(0.35)},
        },
        "differences": {
            "mlp - globediff": {name: _estimate(0.2) for name in ("error_mean", "error_draw", "energy_score")}
        },
        "law": {"weights": [0.4, 0.6], "variance_within": 0.04, "separation": 1.0},
        "embedding": {
            "perplexity": 5.0,
            "agents": [1, 2],
            "episode": [0] * STATES,
            "step": step.tolist(),
            "truth": cloud(),
            "runs": {label: [cloud(), cloud()] for label in ("globediff", "mlp", "oracle")},
        },
        "fan": {
            "episode": 0,
            "start": 5,
            "agent": 1,
            "dims": {"worst": 3, "median": 0, "best": 1},
            "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95],
            "truth": draw.normal(size=(3, 20)).tolist(),
            "runs": {label: bands() for label in ("globediff", "mlp", "oracle")},
            "unit": "environment",
        },
        "runtime": {"infer_s": 1.0},
    }
