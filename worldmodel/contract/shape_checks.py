"""Checks of sizes and types: every tensor is what the contract says it is, finite, and one row a rollout."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from worldmodel.contract.offer_checks import check_offers
from worldmodel.contract.records import check_carry, check_prediction, check_step, check_view
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
from worldmodel.types import Prediction, Segment, Transition


def check_shapes(subject: Subject) -> None:
    """Everything has the shapes of the contract, in float32, for one row and for several; optional offers included."""
    model, spec = subject.model(), subject.spec
    require(model.context_length >= 0, f"context_length = {model.context_length}: expected at least 0")
    for batch in (1, BATCH):
        state = start(model, spec, batch=batch)
        check_carry(state, "start")
        check_view(model, spec, model.view(state), "start", batch)
        result = model.step(state, make_actions(spec, 1, batch=batch)[0], generator=seeded(0))
        check_step(result)
        state, prediction = result
        check_carry(state, "step")
        check_prediction(spec, prediction, batch)
        _check_uncertainty(model, prediction)
        check_view(model, spec, model.view(state), "step", batch)
        transition = make_transition(spec, batch=batch)
        without = "observe of a transition whose state is None, as it may be"
        for after, seen in {"observe": transition, without: dataclasses.replace(transition, state=None)}.items():
            following = model.observe(state, seen, generator=seeded(0))
            check_carry(following, after)
            check_view(model, spec, model.view(following), after, batch)
    check_offers(model, spec)


def _check_uncertainty(model: WorldModel[Any], prediction: Prediction) -> None:
    """Refuse an uncertainty that is not announced, and one that is announced and missing."""
    given, announced = prediction.uncertainty is not None, reports_uncertainty(model)
    require(given or not announced, "prediction: uncertainty is None and the model has reports_uncertainty = True")
    require(
        announced or not given, "prediction: uncertainty is given: expected a model with reports_uncertainty = True"
    )


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
    actions, transition = make_actions(spec, 2), make_transition(spec)
    state, _ = model.step(start(model, spec), actions[0], generator=seeded(0))
    for name, tensor in state.tensors():
        rows = f"carry: {name} has shape {list(tensor.shape)} where there are B = {BATCH} rows"
        require(tensor.shape[:1] == (BATCH,), f"{rows}: expected B as the first axis")
    whole = dict(named("view", model.view(state)))
    sizes = _sizes_after(model, state, actions[1], transition)
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
        for what, size in _sizes_after(model, picked, action, transition[pick]).items():
            expected = [len(action), *sizes[what][1:]]
            require(list(size) == expected, f"from {name}, {what} has shape {list(size)}: expected {expected}")


def _sizes_after(
    model: WorldModel[Any], state: Any, action: Tensor, transition: Transition
) -> dict[str, tuple[int, ...]]:
    """The sizes of everything that is seen after a step and after a real step."""
    following, prediction = model.step(state, action, generator=seeded(0))
    seen = dict(named("prediction", prediction)) | dict(named("view after step", model.view(following)))
    observed = model.observe(state, transition, generator=seeded(0))
    seen |= named("view after observe", model.view(observed))
    return {name: tuple(tensor.shape) for name, tensor in seen.items()}


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
