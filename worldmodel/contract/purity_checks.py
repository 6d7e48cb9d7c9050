"""Checks that a model is a function of its arguments: seeds, rows, inputs and carries, and nothing kept in between."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from worldmodel.contract.learning_checks import training_segment
from worldmodel.contract.random_data import random_trajectory
from worldmodel.contract.subject import (
    BATCH,
    Subject,
    choose,
    first_difference,
    make_actions,
    make_context,
    make_transition,
    named,
    require,
    roll_out,
    same,
    seeded,
    start,
)
from worldmodel.types import Segment, Transition


def check_generator(subject: Subject) -> None:
    """The same seed gives the same rollout, another seed another one; torch's own generator is left alone."""
    model, spec = subject.model(), subject.spec
    actions, transition = make_actions(spec, 3), make_transition(spec)

    def play(seed: int, global_seed: int) -> dict[str, Tensor]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        state = model.start(make_context(model, spec), generator=seeded(seed))
        seen = roll_out(model, state, actions, seed)
        observed = model.observe(state, transition, generator=seeded(seed))
        seen |= {f"after observe, {name}": value for name, value in roll_out(model, observed, actions, seed).items()}
        require(torch.equal(before, torch.get_rng_state()), "torch's default generator was drawn from")
        return seen

    first = play(1, 1)
    difference = first_difference(first, play(1, 2))
    require(difference is None, f"the same seed gives another {difference}")
    if subject.stochastic:
        require(first_difference(first, play(2, 1)) is not None, "another seed gives the same rollout: it is not used")
        state = start(model, spec)
        one, other = roll_out(model, state, actions, 1), roll_out(model, state, actions, 2)
        drawn = first_difference(one, other) is not None
        require(drawn, "from one carry another seed gives the same steps: `step` does not draw from its generator")


def check_rows_independent(subject: Subject) -> None:
    """What happens in a row does not depend, to the bit, on what the other rows hold."""
    model, spec = subject.model(), subject.spec
    row = 1

    def mixed(one: Any, other: Any) -> Any:
        """`one` in `row`, `other` elsewhere."""
        here = torch.arange(BATCH) == row
        rows = dict(other.tensors())
        pairs = {name: choose(here, tensor, rows[name]) for name, tensor in one.tensors()}
        return dataclasses.replace(one, **pairs)

    def play(context: Segment, actions: list[Tensor], transition: Transition) -> dict[str, Tensor]:
        state = model.start(context, generator=seeded(6))
        seen = roll_out(model, state, actions)
        observed = model.observe(state, transition, generator=seeded(7))
        return seen | {f"after observe, {name}": value for name, value in roll_out(model, observed, actions).items()}

    context, actions, transition = make_context(model, spec), make_actions(spec, 3), make_transition(spec)
    other_actions = [
        choose(torch.arange(BATCH) == row, a, b) for a, b in zip(actions, make_actions(spec, 3, 12), strict=True)
    ]
    one = play(context, actions, transition)
    other = play(
        mixed(context, make_context(model, spec, 11)), other_actions, mixed(transition, make_transition(spec, 13))
    )
    difference = first_difference(one, other, [row])
    require(difference is None, f"{difference} of one row depends on the other rows")
    require(first_difference(one, other, [0]) is not None, "another context, action and observation change nothing")

    carried, _ = model.step(model.start(context, generator=seeded(6)), actions[0], generator=seeded(6))

    def observe(is_first: Tensor) -> dict[str, Tensor]:
        seen = dataclasses.replace(transition, is_first=is_first)
        return roll_out(model, model.observe(carried, seen, generator=seeded(7)), actions)

    elsewhere = torch.arange(BATCH) != row
    difference = first_difference(observe(elsewhere), observe(torch.zeros_like(elsewhere)), [row])
    require(difference is None, f"after observe, {difference} of one row depends on is_first of the other rows")


def ignores_actions(subject: Subject) -> bool:
    """Whether another joint action leaves every prediction of a step as it is; no breach, but seldom meant."""
    model, spec = subject.model(), subject.spec
    state = start(model, spec)
    one, other = (roll_out(model, state, make_actions(spec, 1, seed)) for seed in (2, 12))
    return all(same(value, other[name]) for name, value in one.items() if name.startswith("prediction"))


def check_inputs_untouched(subject: Subject) -> None:
    """Contexts, actions, real steps and training data are as they were after every call."""
    model, spec = subject.model(), subject.spec
    context, action, transition = make_context(model, spec), make_actions(spec, 1)[0], make_transition(spec)
    trajectory = random_trajectory(spec, 9, seeded(8))
    inputs = {
        **dict(named("context", context)),
        "action": action,
        **dict(named("transition", transition)),
        **dict(named("trajectory", trajectory)),
    }
    segments = {name: training_segment(part, spec) for name, part in model.parts().items()}
    for name, segment in segments.items():
        inputs |= named(f"segment of {name}", segment)
    before = {name: tensor.clone() for name, tensor in inputs.items()}

    state = model.start(context, generator=seeded(0))
    model.step(state, action, generator=seeded(0))
    model.observe(state, transition, generator=seeded(0))
    model.view(state)
    model.update_statistics(trajectory)
    for name, part in model.parts().items():
        part(segments[name], seeded(0))

    difference = first_difference(before, inputs)
    require(difference is None, f"{difference} was changed in place")


def check_nothing_hidden(subject: Subject) -> None:
    """The same carry, action and seed give the same step, whatever else the model was asked in between."""
    model, spec = subject.model(), subject.spec
    actions, others = make_actions(spec, 2), make_actions(spec, 2, 12)
    state = start(model, spec)
    first = roll_out(model, state, actions)
    half, _ = model.step(state, actions[0], generator=seeded(0))
    from_half = roll_out(model, half, actions)

    elsewhere = start(model, spec, seed=14)
    roll_out(model, elsewhere, others, seed=15)
    roll_out(model, state, others, seed=16)
    roll_out(model, half, others, seed=17)
    roll_out(model, start(model, spec, batch=2), [action[:2] for action in others], seed=17)
    model.observe(half, make_transition(spec, first=True), generator=seeded(18))

    # The later carry first: repeating the earlier one would write again what it had written before.
    difference = first_difference(from_half, roll_out(model, half, actions))
    require(difference is None, f"{difference} of a branched rollout is another after other calls")
    difference = first_difference(first, roll_out(model, state, actions))
    require(difference is None, f"{difference} is another after other calls: something is kept between calls")
    difference = first_difference(first, roll_out(model, state.map(torch.clone), actions))
    require(difference is None, f"{difference} is another from a copy of the carry")
