"""A policy that acts on inferred states: what is remembered, what is inferred from it, and what an oracle changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from imagination.actor_input import ActorInputKind
from imagination.agent import PolicyAgent
from imagination.belief import Belief, Combine
from imagination.policy import Policy, PolicyConfig
from tests.support.dima_models import lively_dima
from tests.support.inference_models import lively_inference
from worldmodel.contract.random_data import stir
from worldmodel.history import infer_for_agents
from worldmodel.inference.given import Oracle
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec

ROWS, STEPS = 3, 6


@pytest.fixture
def make_policy(policy_config: Callable[..., PolicyConfig], point_spec: EnvSpec) -> Callable[..., Policy]:
    def make(kind: ActorInputKind = "obs+state") -> Policy:
        policy = policy_config(input=kind, std="free", log_std_init=-1.0).build(point_spec, 4)
        stir(policy, scale=0.1)
        return policy

    return make


def episode(spec: EnvSpec) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(obs, state, is_first) of each step; the second row starts anew in the middle."""
    g = torch.Generator().manual_seed(3)
    first = [torch.tensor([t == 0, t in (0, 3), t == 0]) for t in range(STEPS)]
    return [
        (torch.randn(ROWS, 2, spec.obs_dim, generator=g), torch.randn(ROWS, 2, generator=g), first[t])
        for t in range(STEPS)
    ]


def act(agent: PolicyAgent, spec: EnvSpec) -> tuple[list[Tensor], list[Any]]:
    steps = episode(spec)
    carry = agent.begin(*steps[0][:2])
    actions, carries = [], []
    for obs, state, is_first in steps:
        action, carry = agent.act(carry, obs, state, is_first)
        actions.append(action)
        carries.append(carry)
    return actions, carries


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("kind", ["state", "obs+state"])
def test_an_oracle_acts_as_on_the_true_state_to_the_bit(
    make_policy: Callable[..., Policy],
    point_world: WorldModel[Any],
    point_spec: EnvSpec,
    kind: ActorInputKind,
    deterministic: bool,
) -> None:
    policy = make_policy(kind)

    def play(belief: Belief | None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.stack(act(PolicyAgent(point_world, policy, generator, deterministic, belief), point_spec)[0])

    assert torch.equal(play(None), play(Belief(Oracle(point_spec))))


def test_histories_are_emptied_where_episodes_start(
    make_policy: Callable[..., Policy], point_world: WorldModel[Any], point_spec: EnvSpec
) -> None:
    belief = Belief(lively_inference(point_spec, "mlp"))
    agent = PolicyAgent(point_world, make_policy(), torch.Generator(), True, belief)
    _, carries = act(agent, point_spec)
    steps = episode(point_spec)
    seen: list[list[Tensor]] = [[] for _ in range(ROWS)]
    for (obs, _, is_first), carry in zip(steps, carries, strict=True):
        for row in range(ROWS):
            seen[row] = [obs[row]] if is_first[row] else [*seen[row], obs[row]]
            expected = torch.stack(([seen[row][0]] * 3 + seen[row])[-4:])
            assert torch.equal(carry.history[row], expected)


@pytest.mark.parametrize(("combine", "num_samples"), [("draw", 1), ("mean", 3), ("votes", 4)])
def test_actions_are_those_for_what_was_inferred(
    make_policy: Callable[..., Policy],
    point_world: WorldModel[Any],
    point_spec: EnvSpec,
    combine: Combine,
    num_samples: int,
) -> None:
    policy, inference = make_policy(), lively_inference(point_spec, "globediff")
    belief = Belief(inference, combine, num_samples)
    agent = PolicyAgent(point_world, policy, torch.Generator().manual_seed(0), True, belief)
    actions, carries = act(agent, point_spec)
    g = torch.Generator().manual_seed(0)
    for (_, state, _), action, carry in zip(episode(point_spec), actions, carries, strict=True):
        drawn = infer_for_agents(inference, carry.history, state, num_samples=num_samples, generator=g)
        view = point_world.view(carry.model_state).actor
        with torch.no_grad():
            each = torch.stack([policy.mode(policy.input.assemble(view, states)) for states in drawn])
        torch.testing.assert_close(action, policy.to_env(belief.choose(each)))


def test_the_true_state_is_not_looked_at(
    make_policy: Callable[..., Policy], point_world: WorldModel[Any], point_spec: EnvSpec
) -> None:
    """With the state alone as input; the world of these tests shows it in its views."""
    policy = make_policy("state")
    belief = Belief(lively_inference(point_spec, "vae"))

    def first_action(state: Tensor) -> Tensor:
        agent = PolicyAgent(point_world, policy, torch.Generator().manual_seed(0), False, belief)
        obs = episode(point_spec)[0][0]
        return agent.act(agent.begin(obs, state), obs, state, torch.ones(ROWS, dtype=torch.bool))[0]

    assert torch.equal(first_action(torch.zeros(ROWS, 2)), first_action(torch.full((ROWS, 2), 9.0)))


@pytest.mark.parametrize(("combine", "num_samples"), [("draw", 1), ("votes", 3)])
def test_the_true_state_is_not_looked_at_beside_observations(
    make_policy: Callable[..., Policy], point_spec: EnvSpec, combine: Combine, num_samples: int
) -> None:
    """Over whole episodes, in a world model that carries states along and shows actors their observations."""
    policy = make_policy("obs+state")
    belief = Belief(lively_inference(point_spec, "globediff"), combine, num_samples)

    def actions(change: Callable[[Tensor], Tensor]) -> Tensor:
        steps = [(obs, change(state), is_first) for obs, state, is_first in episode(point_spec)]
        model: WorldModel[Any] = lively_dima(point_spec)
        agent = PolicyAgent(model, policy, torch.Generator().manual_seed(0), False, belief)
        carry, chosen = agent.begin(*steps[0][:2]), []
        for step in steps:
            action, carry = agent.act(carry, *step)
            chosen.append(action)
        return torch.stack(chosen)

    assert torch.equal(actions(lambda state: state), actions(lambda state: 9 - 3 * state))


def test_a_policy_that_needs_no_state_keeps_no_history(
    make_policy: Callable[..., Policy], point_world: WorldModel[Any], point_spec: EnvSpec
) -> None:
    belief = Belief(lively_inference(point_spec, "mlp"))
    _, carries = act(PolicyAgent(point_world, make_policy("obs"), torch.Generator(), True, belief), point_spec)
    assert all(carry.history is None for carry in carries)
