"""What a policy acts on when it is executed, as manifests and scores say it: only like should be compared with like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dima.run.inference_training import InferenceTraining
from dima.run.settings import TrainSettings
from worldmodel.protocol import WorldModel

Sees = Literal["own", "joint", "full"]
"""The most that reaches an actor: its own observations, those of all agents, or the true global state."""


def describe_execution(
    settings: TrainSettings, model: WorldModel[Any], inference: InferenceTraining | None
) -> dict[str, Any]:
    """`execution_facts` of a run as it trains, with the inferencer that learns beside its policy, if any."""
    state = None
    if settings.policy.policy.input in ("state", "obs+state"):
        state = "true" if inference is None else inference.describe()
    return execution_facts(settings, model, state)


def execution_facts(
    settings: TrainSettings, model: WorldModel[Any], state: Literal["true"] | dict[str, Any] | None
) -> dict[str, Any]:
    """What manifests and scores keep: the actors' input, what an actor `sees` at most, and where the state comes from.

    `state`: None where none is looked at, `true`, or the description of an inferencer.
    """
    kind = settings.policy.policy.input
    sees: Sees = "joint" if hears_others(kind, model, state) else "own"
    if _is_true(state) or getattr(settings.env, "obs_mode", None) == "full":
        sees = "full"
    return {"actor_input": kind, "sees": sees, "state": state}


def hears_others(kind: str, model: WorldModel[Any], state: str | Mapping[str, Any] | None) -> bool:
    """Whether an agent's action depends on what the others observe: by its input, the model's view, or inference."""
    by_view = kind in ("obs", "obs+state") and not model.decentralized
    return kind == "joint" or by_view or (isinstance(state, Mapping) and state["auxiliary"] == "joint")


def announce_execution(execution: Mapping[str, Any]) -> dict[str, str]:
    """The same in words, as one fact that a command prints; nothing where agents act on their own observations alone.

    Facts of older manifests say nothing of what actors see, nor does this of them.
    """
    kind, state, sees = execution["actor_input"], execution["state"], execution.get("sees")
    if kind == "obs" and sees in (None, "own"):
        return {}
    words = "all agents' observations" if kind == "joint" else kind
    if _is_true(state):
        return {"actors see": f"{words}; at execution the true state"}
    if state is not None:
        reads = "own" if state["auxiliary"] == "own" else "all agents'"
        steps = state["history_steps"]
        words += f"; at execution inferred by {state['kind']} from {reads} observations of the last {steps + 1} steps"
        words += f", {state['combine']} of {state['samples']}"
    if sees == "full":
        words += "; every agent observes the full state"
    elif sees == "joint" and kind != "joint" and (state is None or state["auxiliary"] == "own"):
        words += "; agents hear each other through the world model"
    return {"actors see": words}


def state_label(execution: Mapping[str, Any]) -> str:
    """Where the state comes from in a few words, such as `true state` or `globediff, votes of 8`; empty without one."""
    state = execution["state"]
    if state is None:
        return ""
    if _is_true(state):
        return "true state"
    return state["kind"] if state["combine"] == "draw" else f"{state['kind']}, {state['combine']} of {state['samples']}"


def _is_true(state: str | Mapping[str, Any] | None) -> bool:
    return state == "true" or (isinstance(state, Mapping) and state["kind"] == "oracle")
