"""The policy in the real world: what it remembers, when it forgets, and that it can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from imagination.agent import PolicyAgent, PolicyCarry
from imagination.policy import PolicyConfig
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec

OBS = torch.zeros(3, 2, 4)
STATE = torch.tensor([[0.5, -0.5], [0.1, 0.2], [-1.0, 1.0]])
NEVER = torch.zeros(3, dtype=torch.bool)


@pytest.fixture
def make_agent(
    point_world: WorldModel[Any], policy_config: Callable[..., PolicyConfig], point_spec: EnvSpec
) -> Callable[..., PolicyAgent]:
    policy = policy_config(std="free", log_std_init=0.0, input_layer_norm=False).build(point_spec, 4)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))

    def make(deterministic: bool = False, seed: int = 0) -> PolicyAgent:
        return PolicyAgent(point_world, policy, torch.Generator().manual_seed(seed), deterministic)

    return make


def walk(agent: PolicyAgent, num_steps: int) -> tuple[list[Tensor], PolicyCarry]:
    carry = agent.begin(OBS, STATE)
    actions: list[Tensor] = []
    for step in range(num_steps):
        action, carry = agent.act(carry, OBS, STATE, torch.full((3,), step == 0))
        actions.append(action)
    return actions, carry


def test_the_model_is_told_what_was_sent(make_agent: Callable[..., PolicyAgent]) -> None:
    actions, carry = walk(make_agent(), 4)
    assert torch.stack(actions).abs().max() == 1.0, "actions are clamped for the environment"
    assert torch.equal(carry.action, actions[-1])
    # The world reckons where it is from the actions it was told; the last one is not told yet.
    expected = STATE + 0.25 * torch.stack(actions[:-1]).sum(dim=(0, 2))
    torch.testing.assert_close(carry.model_state.state, expected)  # type: ignore[attr-defined]


def test_rows_that_start_anew_forget_the_others_do_not(make_agent: Callable[..., PolicyAgent]) -> None:
    agent = make_agent(deterministic=True)
    _, carry = walk(agent, 3)
    fresh, _ = agent.act(agent.begin(OBS, STATE), OBS, STATE, ~NEVER)
    mixed, _ = agent.act(carry, OBS, STATE, torch.tensor([False, True, False]))
    going_on, _ = agent.act(carry, OBS, STATE, NEVER)
    assert torch.equal(mixed[1], fresh[1])
    assert torch.equal(mixed[0::2], going_on[0::2])
    assert not torch.equal(going_on[1], fresh[1])


def test_seeded_sampling_repeats_and_deterministic_acting_needs_no_seed(
    make_agent: Callable[..., PolicyAgent],
) -> None:
    def actions(deterministic: bool, seed: int) -> Tensor:
        return torch.stack(walk(make_agent(deterministic, seed), 3)[0])

    assert torch.equal(actions(False, 0), actions(False, 0))
    assert not torch.equal(actions(False, 0), actions(False, 1))
    assert torch.equal(actions(True, 0), actions(True, 1))
    assert not actions(True, 0)[..., 1, 1].any(), "the second agent has one action"


def test_carry_can_be_saved_by_name_and_rebuilt(make_agent: Callable[..., PolicyAgent]) -> None:
    _, carry = walk(make_agent(), 3)
    saved = dict(carry.tensors())
    assert set(saved) == {"model_state.state", "model_state.step", "action"}
    names = iter(list(saved))
    rebuilt = make_agent().begin(OBS, STATE).map(lambda _: saved[next(names)])
    agent, other = make_agent(seed=5), make_agent(seed=5)
    first, _ = agent.act(carry, OBS, STATE, NEVER)
    second, _ = other.act(rebuilt, OBS, STATE, NEVER)
    assert torch.equal(first, second)
