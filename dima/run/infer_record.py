"""The record of `dima infer`: everything that is measured of all inferencers, as `docs/inference.md` describes it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dima.run.infer_embedding import describe_embedding
from dima.run.infer_fan import choose_fan, describe_fan, fan_quantiles
from dima.run.infer_inputs import InferTask, Opened
from dima.run.infer_latency import measure_latency
from dima.run.infer_measure import LATENT_REPEATS, Measured, measure, measure_latent
from dima.run.infer_schema import SCHEMA, validate
from dima.run.infer_settings import InferSettings
from dima.run.manifest import describe_hardware
from dima.run.parameters import num_parameters
from worldmodel.dataset import Dataset
from worldmodel.evaluation.inference_baselines import LinearInference, MeanState
from worldmodel.evaluation.inference_metrics import (
    LEVELS,
    attainable_coverage,
    describe_score_difference,
    describe_scores,
    estimate,
)
from worldmodel.evaluation.mode_metrics import describe_modes
from worldmodel.protocol import StateInference
from worldmodel.types import Trajectory

_NO_STATE = "it hands the agents' observations on in the place of a state: nothing is inferred that could be scored"


def make_record(
    settings: InferSettings, dataset: Dataset, opened: Sequence[Opened], task: InferTask, advance: Callable[[], None]
) -> dict[str, Any]:
    """Measure all of `opened` and the baselines; `advance` is called once for each inferencer and once more.

    Raises:
        FloatingPointError: naming the moment, when an inferred state is not finite.
    """
    began = time.monotonic()
    measured: dict[str, Measured] = {}
    latents: dict[str, dict[str, Tensor]] = {}
    for each in opened:
        if each.saved.name != "joint":
            measured[each.label] = measure(each.saved.inference, task, task.device)
            latents[each.label] = measure_latent(each.saved.inference, task, task.device)
        advance()
    latency = measure_latency(opened, task, settings.latency_decisions)
    draws = {label: each.first_draw for label, each in measured.items()}
    record = {
        "schema": SCHEMA,
        **_asked(settings, dataset, opened, task),
        "runs": {
            each.label: {
                **_who(each),
                **_quality(measured.get(each.label), latents.get(each.label, {}), task),
                "note": None if each.label in measured else _NO_STATE,
                "latency": latency[each.label],
            }
            for each in opened
        },
        "baselines": _baselines(opened, task),
        "differences": _differences(measured, task),
        "law": _law(task),
        "embedding": describe_embedding(draws, task, settings.embedding_points, settings.seed),
        "fan": _fan(opened, measured, task),
        "runtime": {"infer_s": round(time.monotonic() - began, 3)},
    }
    validate(record)
    advance()
    return record


def _asked(settings: InferSettings, dataset: Dataset, opened: Sequence[Opened], task: InferTask) -> dict[str, Any]:
    held_out = opened[0].held_out
    return {
        "env": task.spec.env_id,
        "versions": dict(task.spec.versions),
        "agents": task.spec.num_agents,
        "data": {
            "path": str(dataset.path),
            "fingerprint": dataset.fingerprint,
            "episodes": len(held_out),
            "steps": sum(episode.length for episode in held_out),
            "which": "held_out",
        },
        "seed": settings.seed,
        "states": task.moments.num_moments,
        "samples": task.num_samples,
        "bootstrap": {"resamples": len(task.bootstrap.weights), "by": task.bootstrap_by},
        "units": {
            "errors": "squared, in standard deviations of each dimension in the dataset, mean over those that vary",
            "std": task.units.std.tolist(),
            "dims": torch.nonzero(task.units.live)[:, 0].tolist(),
        },
        "attainable_coverage": {str(level): attainable_coverage(level / 100, task.num_samples) for level in LEVELS},
        "hardware": describe_hardware(task.device),
    }


def _who(opened: Opened) -> dict[str, Any]:
    """Which inferencer this is and what it reads at execution."""
    described = opened.saved.describe()
    network = opened.saved.inference
    # Trained ones: GlobeDiff also keeps an average of some of them.
    parameters = sum(num_parameters({"": network}).values()) if isinstance(network, nn.Module) else 0
    reads = spell_reads(described["auxiliary"], described["history_steps"])
    return {**described, "num_parameters": parameters, "reads": reads}


def spell_reads(auxiliary: str, history_steps: int) -> str:
    """What an inferencer reads, in words; runs with the same words are compared like with like."""
    whose = {"own": "own observation", "joint": "all agents' observations", "state": "the true state"}[auxiliary]
    return whose if history_steps == 0 else f"{whose} and the {history_steps} before"


def _quality(measured: Measured | None, latent: Mapping[str, Tensor], task: InferTask) -> dict[str, Any]:
    """`scores`, `by_agent`, `modes` and `latent`, null where there is no such thing."""
    if measured is None:
        return dict.fromkeys(("scores", "by_agent", "modes", "latent"))
    agents = range(task.spec.num_agents)
    modes, law = measured.modes, task.law
    weight = law.mixture(task.moments.history(0)[:1]).weight if law is not None else None
    by_agent = [describe_scores(measured.scores.of_agent(agent), task.bootstrap) for agent in agents]
    return {
        "scores": describe_scores(measured.scores, task.bootstrap),
        "by_agent": [_without_intervals_by_dimension(each) for each in by_agent],
        "modes": describe_modes(modes, weight, task.bootstrap) if modes is not None and weight is not None else None,
        "latent": _latent(latent, task),
    }


def _without_intervals_by_dimension(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores of one agent: of each dimension the value alone, or the record of many agents would be large."""
    for each in (scores["error_mean"], scores["error_draw"], *scores["coverage"].values()):
        each["by_dimension"] = {"value": each["by_dimension"]["value"]}
    return scores


def _latent(latent: Mapping[str, Tensor], task: InferTask) -> dict[str, Any] | None:
    if not latent:
        return None
    described = {name: estimate(values, task.bootstrap) for name, values in latent.items()}
    gap = estimate(latent["error_prior"] - latent["error_posterior"], task.bootstrap)
    return {**described, "gap": gap, "repeats": LATENT_REPEATS}


def _baselines(opened: Sequence[Opened], task: InferTask) -> dict[str, Any]:
    """The mean state, a linear regression for everything that is read, and the exact law where it is known."""
    training = opened[0].training
    baselines = {"mean": _baseline(MeanState(training), None, training, task)}
    scored = {each.reads: each.training for each in reversed(opened) if each.saved.path is not None}
    for reads in sorted(scored or {each.reads: each.training for each in opened}):
        episodes, said = scored.get(reads, training), spell_reads(*reads)
        baselines[f"linear, {said}"] = _baseline(LinearInference(episodes, *reads), said, episodes, task)
    if task.law is not None:
        baselines["exact law"] = _baseline(task.law, None, (), task)
    return baselines


def _baseline(
    inference: StateInference, reads: str | None, training: Sequence[Trajectory], task: InferTask
) -> dict[str, Any]:
    quality = _quality(measure(inference, task, torch.device("cpu")), {}, task)
    del quality["latent"]
    return {"reads": reads, "training_steps": sum(episode.length for episode in training), **quality}


def _differences(measured: Mapping[str, Measured], task: InferTask) -> dict[str, Any]:
    """For every pair of runs, `later - earlier`, paired by moment."""
    return {
        f"{second} - {first}": describe_score_difference(b.scores, a.scores, task.bootstrap)
        for (first, a), (second, b) in itertools.combinations(measured.items(), 2)
    }


def _law(task: InferTask) -> dict[str, Any] | None:
    if task.law is None:
        return None
    mixture = task.law.mixture(task.moments.history(0)[:1])
    trace = float((mixture.weight * mixture.traces()).sum())
    return {"weights": mixture.weight.tolist(), "variance_within": trace, "separation": mixture.separation()}


def _fan(opened: Sequence[Opened], measured: Mapping[str, Measured], task: InferTask) -> dict[str, Any] | None:
    learned = {each.label: measured[each.label].scores for each in opened if each.saved.path and each.label in measured}
    scores = learned or {label: each.scores for label, each in measured.items()}
    if not scores:
        return None
    choice = choose_fan(task, scores)
    shown = {each.label: fan_quantiles(each, choice, task) for each in opened if each.label in measured}
    return describe_fan(choice, shown)
