"""The file `inference.json`, version 1: whether a record has every key, of the right type and length.

`docs/inference.md` says what each key means. Further keys are no mistake; a number that is not finite is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dima.run.record_place import Place, RecordError, read_record
from worldmodel.evaluation.inference_metrics import LEVELS

SCHEMA = 1
"""The version that is written and read."""


def read(path: Path) -> dict[str, Any]:
    """The content of the inference.json at `path`, checked.

    Raises:
        RecordError: when it is missing, no JSON, of another version or damaged; names the file.
    """
    return read_record(path, validate, missing="no measurement", command="infer")


def validate(record: Any) -> None:
    """Check that `record` keeps version 1 of the schema.

    Raises:
        RecordError: naming the first key that is missing, of the wrong type or of the wrong length.
    """
    root = Place("", record)
    schema = root["schema"].integer()
    if schema != SCHEMA:
        raise RecordError(f"schema is {schema}: this version reads {SCHEMA}; infer again to get it")
    sizes = _read_sizes(root)
    root["runs"].each(lambda place: _check_run(place, sizes))
    if not root["runs"].mapping():
        raise root["runs"].fail("at least one run")
    root["baselines"].each(lambda place: _check_baseline(place, sizes))
    root["differences"].each(_check_difference)
    root["law"].optional(_check_law)
    root["embedding"].optional(_check_embedding)
    root["fan"].optional(_check_fan)
    root["runtime"]["infer_s"].number()


@dataclass(frozen=True)
class _Sizes:
    """Lengths that the parts of a record share."""

    samples: int
    agents: int
    dims: int
    """That vary."""


def _read_sizes(root: Place) -> _Sizes:
    root["env"].text()
    root["versions"].each(Place.text)
    for name in ("path", "fingerprint"):
        root["data"][name].text()
    for name in ("episodes", "steps"):
        root["data"][name].integer(at_least=1)
    root["data"]["which"].one_of("held_out")
    root["seed"].integer(at_least=0)
    root["states"].integer(at_least=1)
    root["bootstrap"]["resamples"].integer(at_least=1)
    root["bootstrap"]["by"].one_of("episodes", "moments")
    root["units"]["errors"].text()
    root["units"]["std"].numbers()
    root["units"]["dims"].integers()
    root["attainable_coverage"].marked([str(level) for level in LEVELS], Place.number)
    root["hardware"]["num_threads"].integer(at_least=1)
    root["hardware"]["cpu"].text()
    root["hardware"]["gpu"].optional(Place.text)
    dims = len(root["units"]["dims"].items())
    return _Sizes(root["samples"].integer(at_least=2), root["agents"].integer(at_least=1), dims)


def _check_run(run: Place, sizes: _Sizes) -> None:
    run["kind"].text()
    run["run"].optional(Place.text)
    for name in ("checkpoint", "history_steps", "num_parameters"):
        run[name].integer(at_least=0)
    run["auxiliary"].one_of("own", "joint", "state")
    run["reads"].text()
    run["note"].optional(Place.text)
    if (run["scores"].value is None) == (run["note"].value is None):
        raise run["note"].fail("a note where, and only where, there are no scores")
    _check_quality(run, sizes)
    run["latent"].optional(_check_latent)
    run["latency"].optional(_check_latency)


def _check_baseline(baseline: Place, sizes: _Sizes) -> None:
    baseline["reads"].optional(Place.text)
    baseline["training_steps"].integer(at_least=0)
    _check_quality(baseline, sizes)


def _check_quality(place: Place, sizes: _Sizes) -> None:
    place["scores"].optional(lambda scores: _check_scores(scores, sizes, by_dimension=True))
    if place["scores"].value is not None:
        for agent in place["by_agent"].items(sizes.agents):
            _check_scores(agent, sizes, by_dimension=False)
    place["modes"].optional(_check_modes)


def _check_scores(scores: Place, sizes: _Sizes, *, by_dimension: bool) -> None:
    coverage = [scores["coverage"][str(level)] for level in LEVELS]
    for each in (scores["error_mean"], scores["error_draw"], *coverage):
        _check_estimate(each)
        each["by_dimension"]["value"].numbers(sizes.dims)
        if by_dimension:
            each["by_dimension"]["ci95"].intervals(sizes.dims)
    _check_estimate(scores["energy_score"])
    scores["ranks"]["histogram"].integers(sizes.samples + 1)
    scores["ranks"]["p_value"].optional(Place.number)


def _check_estimate(place: Place) -> None:
    place["value"].number()
    place["ci95"].interval()


def _check_modes(modes: Place) -> None:
    for name in ("nearest_error", "weight_error", "weight_error_per_state"):
        _check_estimate(modes[name])
    modes["shares"].numbers()


def _check_latent(latent: Place) -> None:
    for name in ("kl", "error_prior", "error_posterior", "gap"):
        _check_estimate(latent[name])
    latent["repeats"].integer(at_least=1)


def _check_latency(latency: Place) -> None:
    for name in ("one", "batch"):
        latency[name]["environments"].integer(at_least=1)
        latency[name]["decisions"].integer(at_least=1)
        for clock in ("wall_ms", "cpu_ms"):
            latency[name][clock].number()


def _check_difference(difference: Place) -> None:
    for name in ("error_mean", "error_draw", "energy_score"):
        _check_estimate(difference[name])


def _check_law(law: Place) -> None:
    law["weights"].numbers()
    law["variance_within"].number()
    law["separation"].number()


def _check_embedding(embedding: Place) -> None:
    embedding["perplexity"].number()
    embedding["agents"].integers()
    kept = len(embedding["step"].items())
    for name in ("episode", "step"):
        embedding[name].integers(kept)
    groups = [embedding["truth"]]
    embedding["runs"].each(lambda run: groups.extend(run.items(len(embedding["agents"].value))))
    for group in groups:
        for point in group.items(kept):
            point.numbers(2)


def _check_fan(fan: Place) -> None:
    for name in ("episode", "start"):
        fan[name].integer(at_least=0)
    fan["agent"].integer(at_least=1)
    fan["dims"].each(lambda place: place.integer(at_least=0))
    fan["unit"].text()
    num_dims, num_quantiles = len(fan["dims"].value), len(fan["quantiles"].items())
    fan["quantiles"].numbers()
    lines = fan["truth"].items(num_dims)
    steps = len(lines[0].items()) if lines else 0
    for line in lines:
        line.numbers(steps)

    def check_run(run: Place) -> None:
        for dim in run.items(num_dims):
            for step in dim.items(steps):
                step.numbers(num_quantiles)

    fan["runs"].each(check_run)
