"""Checks of sizes and types: every tensor is what the contract says it is, finite, and one row a rollout."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from worldmodel.contract.subject import (
    BATCH,
    BrokenContract,
    Subject,
    first_difference,
    make_actions,
    make_context,
    make_transition,
    named,
    require,
    roll_out,
    seeded,
    start,
)
from worldmodel.protocol import WorldModel, reports_uncertainty
from worldmodel.shapes import check_shape
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct


def check_shapes(subject: Subject) -> None:
    """Everything has the shapes of the contract, in float32, for one row and for several."""
    model, spec = subject.model(), subject.spec
    require(model.context_length >= 0, f"context_length = {model.context_length}: expected at least 0")
    for batch in (1, BATCH):
        state = start(model, spec, batch=batch)
        _check_view(model, spec, model.view(state), "start", batch)
        state, prediction = model.step(state, make_actions(spec, 1, batch=batch)[0], generator=seeded(0))
        _check_prediction(spec, prediction, batch)
        says_so = reports_uncertainty(model) == (prediction.uncertainty is not None)
        require(says_so, "prediction: uncertainty is given exactly where the model has reports_uncertainty = True")
        _check_view(model, spec, model.view(state), "step", batch)
        transition = make_transition(spec, batch=batch)
        for seen in (transition, dataclasses.replace(transition, state=None)):
            state = model.observe(state, seen, generator=seeded(0))
            _check_view(model, spec, model.view(state), "observe", batch)
        require(isinstance(state, TensorStruct), f"the carry is a {type(state).__name__}: expected a TensorStruct")


def _check_view(model: WorldModel[Any], spec: EnvSpec, view: AgentView, after: str, batch: int) -> None:
    sizes = {"B": batch, "N": spec.num_agents, "F": model.actor_dim, "C": model.critic_dim, "S": spec.state_dim}
    for name, pattern in (("actor", "B N F"), ("critic", "B C"), ("state", "B S")):
        if getattr(view, name) is not None or name != "state":
            _check_tensor(f"view after {after}: {name}", getattr(view, name), pattern, sizes)


def _check_prediction(spec: EnvSpec, prediction: Prediction, batch: int) -> None:
    sizes = {"B": batch, "N": spec.num_agents, "O": spec.obs_dim, "S": spec.state_dim}
    for name, pattern in (
        ("obs", "B N O"),
        ("state", "B S"),
        ("reward", "B"),
        ("continuation", "B"),
        ("uncertainty", "B"),
    ):
        if getattr(prediction, name) is not None or name not in ("state", "uncertainty"):
            _check_tensor(f"prediction: {name}", getattr(prediction, name), pattern, sizes)
    inside = (prediction.continuation >= 0) & (prediction.continuation <= 1)
    require(inside.all(), f"prediction: continuation = {prediction.continuation}: expected probabilities in [0, 1]")
    if prediction.uncertainty is not None:
        known = bool((prediction.uncertainty >= 0).all())
        require(known, f"prediction: uncertainty = {prediction.uncertainty}: expected at least 0")


def _check_tensor(name: str, tensor: Tensor, pattern: str, sizes: dict[str, int]) -> None:
    try:
        check_shape(name, tensor, pattern, **sizes)
    except ValueError as error:
        raise BrokenContract(str(error)) from error
    require(tensor.dtype == torch.float32, f"{name} is {tensor.dtype}: expected torch.float32")


def check_finite(subject: Subject) -> None:
    """A long rollout under extreme actions, from the middle and the start of episodes, has no NaN or infinity."""
    model, spec = subject.model(), subject.spec
    mask = spec.action_mask()
    actions = [sign * mask.expand(BATCH, -1, -1).float() for sign in (1.0, -1.0) * 10]
    for name, tensor in roll_out(model, start(model, spec), actions).items():
        require(torch.isfinite(tensor).all(), f"{name} is not finite")


def check_indexing(subject: Subject) -> None:
    """Rows of the carry can be picked by slice, index or mask, show what they showed, and go on."""
    model, spec = subject.model(), subject.spec
    actions = make_actions(spec, 2)
    state, _ = model.step(start(model, spec), actions[0], generator=seeded(0))
    whole = dict(named("view", model.view(state)))
    picks: dict[str, Any] = {
        "state[:2]": slice(2),
        "state[[3, 0]]": torch.tensor([3, 0]),
        "state[mask]": torch.arange(BATCH) == 2,
    }
    for name, pick in picks.items():
        picked = state[pick]
        difference = first_difference(
            dict(named("view", model.view(picked))), {key: value[pick] for key, value in whole.items()}
        )
        require(difference is None, f"{name}: {difference} is not that of the rows picked")
        action = actions[1][pick]
        following, prediction = model.step(picked, action, generator=seeded(0))
        _check_prediction(spec, prediction, len(action))
        _check_view(model, spec, model.view(following), f"step from {name}", len(action))
        following = model.observe(picked, make_transition(spec)[pick], generator=seeded(0))
        _check_view(model, spec, model.view(following), f"observe from {name}", len(action))


def check_padding(subject: Subject) -> None:
    """Predicted observations, from a full context or a first step, have zeros as padding and agents' ids in place."""
    model, spec = subject.model(), subject.spec
    context = make_context(model, spec)
    first = Segment.from_first(context.obs[:, -1], context.state[:, -1], spec.action_dim, model.context_length)
    for what, segment in {"a context": context, "an episode's first step": first}.items():
        seen = roll_out(model, model.start(segment, generator=seeded(0)), make_actions(spec, 2))
        for step in ("prediction 1: obs", "prediction 2: obs"):
            padded = seen[step][:, ~spec.obs_mask()]
            if padded.any():
                raise BrokenContract(f"{step} from {what}: padding holds {padded.abs().max()}, expected zeros")
            known = torch.equal(torch.where(spec.own_obs_mask(), 0, seen[step]), spec.known_obs().expand_as(seen[step]))
            require(known, f"{step} from {what}: the last N = {spec.num_agents} entries are not the agents' ids")
