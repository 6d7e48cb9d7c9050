"""What a policy acts on when it is executed, as manifests and scores say it: only like should be compared with like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dima.run.inference_training import InferenceTraining
from dima.run.settings import TrainSettings


def describe_execution(settings: TrainSettings, inference: InferenceTraining | None) -> dict[str, Any]:
    """The actors' input, and where the state in it comes from: None, `true`, or an inferencer with what it reads."""
    kind = settings.policy.policy.input
    if kind not in ("state", "obs+state"):
        return {"actor_input": kind, "state": None}
    return {"actor_input": kind, "state": "true" if inference is None else inference.describe()}


def announce_execution(execution: Mapping[str, Any]) -> dict[str, str]:
    """The same in words, as one fact that a command prints; nothing where agents act on their observations alone."""
    if execution["actor_input"] == "obs":
        return {}
    state = execution["state"]
    words = "all agents' observations" if execution["actor_input"] == "joint" else execution["actor_input"]
    if state == "true" or (state is not None and state["kind"] == "oracle"):
        words += "; at execution the true state"
    elif state is not None:
        reads = "own" if state["auxiliary"] == "own" else "all agents'"
        steps = state["history_steps"]
        words += f"; at execution inferred by {state['kind']} from {reads} observations of the last {steps + 1} steps"
        words += f", {state['combine']} of {state['samples']}"
    return {"actors see": words}
