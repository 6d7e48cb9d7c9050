"""How long a decision waits for its inferred states: one environment, and a batch of environments side by side.

One draw for every agent, as a policy acts on. All inferencers are timed in turn, so that a machine that becomes slower
does so for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dima.run.bench_timing import Call, median, time_twins
from dima.run.infer_inputs import InferTask, Opened
from worldmodel.history import infer_for_agents

BATCH = 64
"""Environments that are served at once."""

_BATCH_SHARE = 5
"""A batch is timed once for so many single decisions, but at least as often as that."""


def measure_latency(opened: Sequence[Opened], task: InferTask, decisions: int) -> dict[str, dict[str, Any] | None]:
    """By label: medians over `decisions` of the wall-clock and the process's CPU time of one decision; None for 0."""
    if decisions == 0:
        return {each.label: None for each in opened}
    batches = min(decisions, max(_BATCH_SHARE, decisions // _BATCH_SHARE))
    one = time_twins({each.label: _decide(each, task, 1) for each in opened}, decisions, task.device)
    many = time_twins({each.label: _decide(each, task, BATCH) for each in opened}, batches, task.device)
    return {
        label: {
            "one": {"environments": 1, "decisions": decisions, **_milliseconds(one[label])},
            "batch": {"environments": BATCH, "decisions": batches, **_milliseconds(many[label])},
        }
        for label in one
    }


def _decide(opened: Opened, task: InferTask, num_envs: int) -> Call:
    """One decision of `num_envs` environments, each at a moment of the task."""
    inference, device = opened.saved.inference, task.device
    index = [i % task.moments.num_moments for i in range(num_envs)]
    history = task.moments.history(inference.history_steps)[index].to(device)
    state = task.moments.state[index].to(device)
    generator = task.generator("latency", device)
    return lambda: infer_for_agents(inference, history, state, num_samples=1, generator=generator)


def _milliseconds(timings: Any) -> dict[str, float]:
    middle = median(timings)
    return {"wall_ms": round(1e3 * middle.wall_s, 4), "cpu_ms": round(1e3 * middle.cpu_s, 4)}
