"""Checks of the real world: what actors may see of others, and that a new episode forgets the one before."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from worldmodel.contract.random_data import random_action, random_obs, random_state, random_transition
from worldmodel.contract.subject import (
    BATCH,
    Subject,
    first_difference,
    make_actions,
    make_transition,
    require,
    roll_out,
    same,
    seeded,
    start,
)
from worldmodel.types import EnvSpec, Transition

_CHANGES = (35, 50, 60)
"""Seeds of other observations and actions: any one may leave a coarse view as it was."""


def check_views_do_not_leak(subject: Subject) -> None:
    """While acting, a decentralised agent sees nothing of what others observe or do, nor of the global state."""
    model, spec = subject.model(), subject.spec
    if not model.decentralized:
        return
    steps = [make_transition(spec, seed, first=seed == 30) for seed in (30, 31, 32)]

    def views(transitions: list[Transition]) -> Tensor:
        state, seen = start(model, spec), []
        for transition in transitions:
            state = model.observe(state, transition, generator=seeded(33))
            seen.append(model.view(state).actor)
        return torch.stack(seen)  # [steps, B, N, F]

    before = views(steps)
    for agent in range(spec.num_agents):
        others = [i for i in range(spec.num_agents) if i != agent]
        own_changes = False
        for seed in _CHANGES:
            for name, what in {"obs": "observes", "action": "does"}.items():
                after = views([_change_agent(step, name, agent, spec, seed + i) for i, step in enumerate(steps)])
                require(
                    same(before[:, :, others], after[:, :, others]),
                    f"the actor views of other agents change with what agent {agent} {what}",
                )
                own_changes |= name == "obs" and not same(before[:, :, agent], after[:, :, agent])
        require(own_changes, f"the actor view of agent {agent} does not change with what it observes")
    seen = [dataclasses.replace(s, state=random_state(spec, BATCH, seeded(34))) for s in steps]
    require(same(before, views(seen)), "the actor views change with the global state")
    require(
        same(before, views([dataclasses.replace(s, state=None) for s in steps])),
        "the actor views change when the global state is not given",
    )


def _change_agent(step: Transition, name: str, agent: int, spec: EnvSpec, seed: int) -> Transition:
    """`step` with another observation or action of `agent`."""
    changed = getattr(step, name).clone()
    if name == "obs":
        # Large, so that a view of few tokens changes too.
        drawn = torch.where(spec.own_obs_mask(), 3 * random_obs(spec, BATCH, seeded(seed)), spec.known_obs())
    else:
        drawn = random_action(spec, BATCH, seeded(seed))
    changed[:, agent] = drawn[:, agent]
    return dataclasses.replace(step, **{name: changed})


def check_observe_forgets(subject: Subject) -> None:
    """Rows with `is_first` go on as if nothing had been before them, neither real nor imagined; others remember."""
    model, spec = subject.model(), subject.spec
    actions = make_actions(spec, 2)
    is_first = torch.arange(BATCH) < 3
    fresh = random_transition(spec, BATCH, seeded(41), is_first)

    def play(seed: int, seen: Transition) -> dict[str, Tensor]:
        state = start(model, spec, seed)
        state = model.observe(state, make_transition(spec, seed), generator=seeded(0))
        state, _ = model.step(state, make_actions(spec, 1, seed)[0], generator=seeded(0))
        return roll_out(model, model.observe(state, seen, generator=seeded(0)), actions)

    for what, seen in {"is_first": fresh, "is_first and no state": dataclasses.replace(fresh, state=None)}.items():
        one, other = play(42, seen), play(43, seen)
        difference = first_difference(one, other, is_first)
        require(difference is None, f"after observe with {what}, {difference} depends on what came before")
        if model.context_length > 0:
            remembers = first_difference(one, other, ~is_first) is not None
            matters = f"context_length = {model.context_length} says that the past matters"
            require(remembers, f"{matters}, but observe keeps nothing of it, in rows without is_first either")
