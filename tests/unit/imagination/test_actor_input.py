"""What actors are fed with, against a loop that writes down one agent's input after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from imagination.actor_input import ActorInput, ActorInputKind
from imagination.policy import PolicyConfig
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_trajectory
from worldmodel.types import AgentView, EnvSpec

SPEC = EnvSpec("test", 3, 4, (2, 2, 2), (1, 1, 1), 20)
VIEW = 5
KINDS: tuple[ActorInputKind, ...] = ("obs", "state", "obs+state", "joint")


def lively(kind: ActorInputKind) -> ActorInput:
    actor_input = ActorInput(kind, SPEC, VIEW)
    actor_input.update_statistics(random_trajectory(SPEC, 30, torch.Generator().manual_seed(0)))
    return actor_input


def standardised(state: Tensor) -> Tensor:
    seen = random_trajectory(SPEC, 30, torch.Generator().manual_seed(0)).state.double()
    return ((state - seen.mean(dim=0)) / seen.std(dim=0, correction=0)).float()


def naive(kind: ActorInputKind, views: Tensor, states: Tensor) -> Tensor:
    """One row's inputs from its views [N,F] and the agents' states [N,S]."""
    rows = []
    for agent in range(SPEC.num_agents):
        who = [float(other == agent) for other in range(SPEC.num_agents)]
        own, state = views[agent].tolist(), standardised(states[agent]).tolist()
        everyone = [entry for view in views.tolist() for entry in view]
        parts = {"obs": own, "state": state + who, "obs+state": own + state + who, "joint": everyone + who}
        rows.append(parts[kind])
    return torch.tensor(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_those_of_a_loop_for_one_state_and_for_one_an_agent(kind: ActorInputKind) -> None:
    actor_input = lively(kind)
    views, state = torch.randn(2, 3, VIEW), 1 + 2 * torch.randn(2, 4)
    shared = actor_input.assemble(views, state)
    assert shared.shape == (2, 3, actor_input.dim)
    own_states = 1 + 2 * torch.randn(7, 2, 3, 4)
    drawn = actor_input.assemble(views.expand(7, -1, -1, -1), own_states)
    assert drawn.shape == (7, 2, 3, actor_input.dim)
    for row in range(2):
        torch.testing.assert_close(shared[row], naive(kind, views[row], state[row].expand(3, -1)))
        for draw in range(7):
            torch.testing.assert_close(drawn[draw, row], naive(kind, views[row], own_states[draw, row]))
    assert torch.equal(actor_input(AgentView(views, torch.zeros(2, 1), state)), shared)


def test_observations_pass_as_they_are() -> None:
    views = torch.randn(2, 3, VIEW)
    assert lively("obs").assemble(views, None) is views
    assert lively("obs").state_dict() == {}, "older runs can be read"


@pytest.mark.parametrize("kind", ["obs", "joint"])
def test_no_state_is_needed_where_none_is_shown(kind: ActorInputKind) -> None:
    actor_input = lively(kind)
    assert not actor_input.uses_state
    actor_input(AgentView(torch.randn(2, 3, VIEW), torch.zeros(2, 1)))


@pytest.mark.parametrize("kind", ["state", "obs+state"])
def test_a_model_without_state_is_refused(kind: ActorInputKind) -> None:
    with pytest.raises(ConfigError, match="this world model has no global state; expected obs or joint"):
        lively(kind)(AgentView(torch.randn(2, 3, VIEW), torch.zeros(2, 1)))


def test_statistics_take_every_state_once_and_are_saved() -> None:
    whole = random_trajectory(SPEC, 30, torch.Generator().manual_seed(0))
    actor_input = ActorInput("state", SPEC, VIEW)
    actor_input.update_statistics(whole.map(lambda t: t[: 11 if len(t) == 31 else 10]))
    rest = whole.map(lambda t: t[10:])
    actor_input.update_statistics(type(whole)(**{**vars(rest), "is_start": False}))
    views, state = torch.randn(2, 3, VIEW), torch.randn(2, 4)
    torch.testing.assert_close(actor_input.assemble(views, state), lively("state").assemble(views, state))
    other = ActorInput("state", SPEC, VIEW)
    other.load_state_dict(actor_input.state_dict())
    assert torch.equal(other.assemble(views, state), actor_input.assemble(views, state))


def test_a_policy_learns_from_every_kind(policy_config: Callable[..., PolicyConfig]) -> None:
    for kind in KINDS:
        policy = policy_config(input=kind).build(SPEC, VIEW)
        made = policy.input.assemble(torch.randn(2, 3, VIEW), torch.randn(2, 4))
        action, log_prob = policy.sample(made, torch.Generator().manual_seed(0))
        assert action.shape == (2, 3, 1)
        assert log_prob.shape == (2, 3)
