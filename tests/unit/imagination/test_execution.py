"""The path that is exported acts as the agent does, for the same noise, over an episode with a new start in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from dima.run.actor_view import actor_view
from imagination.actor_input import ActorInputKind
from imagination.agent import PolicyAgent
from imagination.belief import Belief, Combine
from imagination.execution import ExecutionPath
from imagination.policy import Policy
from tests.support.decision_noise import decision_noise
from tests.support.dima_models import compose_group, lively_dima
from tests.support.ensemble_models import lively_ensemble
from tests.support.inference_models import lively_inference
from tests.support.rssm_models import lively_rssm
from tests.support.transformer_models import lively_transformer
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_obs, random_state, random_trajectory, stir
from worldmodel.history import begin_history, extend_history
from worldmodel.inference.given import Oracle
from worldmodel.types import EnvSpec

SPEC = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)
ROWS, STEPS = 2, 6


def lively_policy(kind: ActorInputKind, *overrides: str) -> Policy:
    words = ["+policy=mappo", f"policy.policy.input={kind}", *(f"policy.policy.{o}" for o in overrides)]
    policy = compose_group(words, "policy").policy.build(SPEC, SPEC.obs_dim)
    stir(policy, scale=0.1)
    policy.input.update_statistics(random_trajectory(SPEC, 30, torch.Generator().manual_seed(0)))
    return policy


@pytest.mark.parametrize(
    ("kind", "inferencer", "combine", "samples", "deterministic"),
    [
        ("obs", None, "draw", 1, True),
        ("obs", None, "draw", 1, False),
        ("joint", None, "draw", 1, False),
        ("state", "globediff", "draw", 1, True),
        ("obs+state", "globediff", "votes", 3, False),
        ("obs+state", "vae", "mean", 2, False),
        ("state", "mlp", "draw", 1, True),
    ],
)
@torch.no_grad()
def test_it_acts_as_the_agent_does(
    kind: ActorInputKind, inferencer: str | None, combine: Combine, samples: int, deterministic: bool
) -> None:
    model: Any = lively_dima(SPEC, "normalize_obs=true")
    policy = lively_policy(kind)
    belief = None if inferencer is None else Belief(lively_inference(SPEC, inferencer), combine, samples)
    path = ExecutionPath(policy, actor_view(model, SPEC), belief, deterministic)
    agent = PolicyAgent(model, policy, torch.Generator().manual_seed(5), deterministic, belief)
    noise, data = torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)
    obs = random_obs(SPEC, ROWS, data)
    carry, history = agent.begin(obs, random_state(SPEC, ROWS, data)), begin_history(obs, path.history_steps)
    for step in range(STEPS):
        is_first = torch.tensor([step == 0, step in (0, 3)])
        history = extend_history(history, obs, is_first)
        expected, carry = agent.act(carry, obs, random_state(SPEC, ROWS, data), is_first)
        drawn = decision_noise(path.noise, samples, SPEC.num_agents, ROWS, noise)
        action = path(history, drawn) if path.noise.total else path(history)
        torch.testing.assert_close(action, expected, rtol=1e-5, atol=1e-5)
        obs = random_obs(SPEC, ROWS, data)


@pytest.mark.parametrize(
    ("kind", "inferencer", "combine", "samples", "deterministic"),
    [
        ("obs", None, "draw", 1, False),
        ("state", "globediff", "draw", 1, True),
        ("obs+state", "vae", "votes", 3, False),
    ],
)
@torch.no_grad()
def test_an_agent_alone_acts_as_in_its_team(
    kind: ActorInputKind, inferencer: str | None, combine: Combine, samples: int, deterministic: bool
) -> None:
    policy, view = lively_policy(kind), actor_view(lively_dima(SPEC, "normalize_obs=true"), SPEC)
    belief = None if inferencer is None else Belief(lively_inference(SPEC, inferencer), combine, samples)
    team, data = ExecutionPath(policy, view, belief, deterministic), torch.Generator().manual_seed(6)
    history = torch.stack([random_obs(SPEC, ROWS, data) for _ in range(team.history_steps + 1)], dim=1)
    noise = torch.randn(ROWS, team.noise.total, generator=data)
    expected = team(history, noise)
    for agent in range(SPEC.num_agents):
        alone = ExecutionPath(policy, view, belief, deterministic, agent)
        parts = noise.split([team.noise.inference, team.noise.action], dim=1)
        own = [part.unflatten(1, (samples, SPEC.num_agents, -1))[:, :, agent].flatten(1) for part in parts]
        action = alone(history[:, :, agent], torch.cat(own, dim=1))
        torch.testing.assert_close(action, expected[:, agent], rtol=1e-5, atol=1e-5)


LIVELY: dict[str, Callable[[str], Any]] = {
    "dima": lambda word: lively_dima(SPEC, word),
    "ensemble": lambda word: lively_ensemble(SPEC, word),
    "transformer": lambda word: lively_transformer(word, spec=SPEC),
}
"""Models whose view is a function of the present observations, under one override."""


@pytest.mark.parametrize("normalize", ["true", "false"])
@pytest.mark.parametrize("name", LIVELY)
@torch.no_grad()
def test_every_model_s_view_can_be_taken_out_of_it(name: str, normalize: str) -> None:
    """As one file of torch.export that acts as the agent does, at another batch size than it was traced with."""
    model, policy = LIVELY[name](f"normalize_obs={normalize}"), lively_policy("obs")
    owned = set(model.state_dict())
    view = actor_view(model, SPEC)
    assert isinstance(view, nn.Identity) == (normalize == "false" and name != "transformer")
    path = ExecutionPath(policy, view, None, True).eval()
    shapes = ({0: Dim("batch", min=1, max=64)},)
    file = torch.export.export(path, (torch.zeros(3, 1, 3, SPEC.obs_dim),), dynamic_shapes=shapes).module()
    agent, data = PolicyAgent(model, policy, torch.Generator(), True), torch.Generator().manual_seed(6)
    obs = random_obs(SPEC, ROWS, data)
    carry = agent.begin(obs, random_state(SPEC, ROWS, data))
    for step in range(3):
        expected, carry = agent.act(carry, obs, random_state(SPEC, ROWS, data), torch.full((ROWS,), step == 0))
        torch.testing.assert_close(file(obs[:, None]), expected, rtol=1e-5, atol=1e-5)
        obs = random_obs(SPEC, ROWS, data)
    assert set(model.state_dict()) == owned, "the model does not own its view"


def test_a_view_of_more_than_the_present_is_refused() -> None:
    model: Any = lively_dima(SPEC)
    model.view = lambda state: type(model).view(model, state).map(lambda t: t + state.z.sum())
    for refused in (model, lively_rssm(SPEC)):
        name = type(refused).__name__
        with pytest.raises(ConfigError, match=f"of {name} depends on more than the present observations"):
            actor_view(refused, SPEC)


def test_a_view_that_the_model_does_not_give_is_refused() -> None:
    model: Any = lively_dima(SPEC)
    model.view = lambda state: type(model).view(model, state).map(lambda t: 2 * t)
    with pytest.raises(ConfigError, match="DimaWorldModel has no module `actor_view` that shows the present"):
        actor_view(model, SPEC)


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        ExecutionPath(lively_policy("state"), nn.Identity(), None, True)
    with pytest.raises(ConfigError, match="Oracle learned nothing"):
        ExecutionPath(lively_policy("state"), nn.Identity(), Belief(Oracle(SPEC)), True)
    with pytest.raises(ConfigError, match="agent = 3: expected a number from 0 to 2"):
        ExecutionPath(lively_policy("obs"), nn.Identity(), None, True, 3)
    path = ExecutionPath(lively_policy("obs", "head=beta"), nn.Identity(), None, False)
    with pytest.raises(ConfigError, match="use deterministic=true"):
        path(torch.zeros(1, 1, 3, SPEC.obs_dim), torch.zeros(1, path.noise.total))
