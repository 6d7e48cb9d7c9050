"""The shared actor: published starting point, padded agents, decentralisation, determinism, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from imagination.policy import PolicyConfig
from worldmodel.config import ConfigError
from worldmodel.types import EnvSpec

HEADS = [{"head": "gaussian"}, {"head": "gaussian", "mean": "tanh", "std": "free"}, {"head": "beta"}]
Config = Callable[..., PolicyConfig]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_starts_as_published(policy_config: Config, point_spec: EnvSpec) -> None:
    policy = policy_config().build(point_spec, 4)
    view = torch.randn(64, 2, 4)
    assert policy.mode(view).abs().max() < 0.1
    assert policy.std(view).item() == pytest.approx(0.3655, abs=1e-4)
    assert [type(layer).__name__ for layer in policy.trunk] == ["LayerNorm", *["Linear", "ReLU", "LayerNorm"] * 3]
    beta = policy_config(head="beta").build(point_spec, 4)
    assert not beta.mode(view).any()
    assert beta(view).alpha.unique().item() == pytest.approx(1 + torch.tensor(2.0).log().item())


@pytest.mark.parametrize("head", HEADS, ids=["sigmoid", "free", "beta"])
def test_padded_actions_are_zero_and_count_for_nothing(head: dict[str, str], policy_config: Config) -> None:
    padded = EnvSpec("p", 2, 2, (2, 2), (2, 1), 15, appends_agent_id=True)
    policy = policy_config(**head).build(padded, 4)
    view = torch.randn(5, 3, 2, 4)
    action, log_prob = policy.sample(view, generator())
    assert action.shape == (5, 3, 2, 2)
    assert log_prob.shape == (5, 3, 2)
    assert not action[..., 1, 1].any()
    assert action[..., 0, 1].all()
    assert not policy.mode(view)[..., 1, 1].any()
    # Agent 1 has one action only, so its log-probability is that of this one number, and so is its entropy.
    distribution = policy(view)
    torch.testing.assert_close(log_prob[..., 1], distribution.log_prob(action)[..., 1, 0])
    again, entropy = policy.evaluate(view, action)
    assert torch.equal(again, log_prob)
    torch.testing.assert_close(entropy[..., 1], distribution.entropy()[..., 1, 0])
    torch.testing.assert_close(entropy[..., 0], distribution.entropy()[..., 0, :].sum(-1))


@pytest.mark.parametrize("head", HEADS, ids=["sigmoid", "free", "beta"])
def test_an_agent_acts_on_its_own_view_only(head: dict[str, str], policy_config: Config, point_spec: EnvSpec) -> None:
    policy = policy_config(**head).build(point_spec, 4)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    view = torch.randn(6, 2, 4)
    other = view.clone()
    other[:, 1] += 1.0
    action, log_prob = policy.sample(view, generator())
    changed, changed_log_prob = policy.sample(other, generator())
    assert torch.equal(policy.mode(view)[:, 0], policy.mode(other)[:, 0])
    assert not torch.equal(policy.mode(view)[:, 1], policy.mode(other)[:, 1])
    if head["head"] == "gaussian":  # rejection sampling of the Beta may use up the generator differently
        assert torch.equal(action[:, 0], changed[:, 0])
        assert torch.equal(log_prob[:, 0], changed_log_prob[:, 0])


@pytest.mark.parametrize("head", HEADS, ids=["sigmoid", "free", "beta"])
def test_same_seed_same_action(head: dict[str, str], policy_config: Config, point_spec: EnvSpec) -> None:
    policy = policy_config(**head).build(point_spec, 4)
    view = torch.randn(6, 2, 4)
    assert torch.equal(policy.sample(view, generator(3))[0], policy.sample(view, generator(3))[0])
    assert not torch.equal(policy.sample(view, generator(3))[0], policy.sample(view, generator(4))[0])
    assert policy.to_env(torch.tensor([-2.0, 0.5, 1.5])).tolist() == [-1.0, 0.5, 1.0]


def test_free_log_std_stays_in_range_and_can_leave_the_edge(policy_config: Config, point_spec: EnvSpec) -> None:
    policy = policy_config(std="free", log_std_init=-1.0, log_std_min=-1.5, log_std_max=0.0).build(point_spec, 4)
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    view = torch.randn(8, 2, 4)
    floor = torch.tensor(-1.5).exp().item()
    for sign, expected in ((1.0, floor), (-1.0, 1.0)):  # push the entropy down, then up
        for _ in range(5):
            optimizer.zero_grad()
            action = torch.zeros(8, 2, 2)
            (sign * policy.evaluate(view, action)[1].mean()).backward()
            optimizer.step()
            policy.constrain()
        assert policy.std(view).item() == pytest.approx(expected, rel=1e-5)


def test_refuses_impossible_configurations(policy_config: Config) -> None:
    with pytest.raises(ConfigError, match="log_std_init = 1"):
        policy_config(log_std_init=1.0)
    with pytest.raises(ConfigError, match="hidden_dims"):
        policy_config(hidden_dims=[])
    with pytest.raises(ConfigError, match="gaussian, beta"):
        policy_config(head="normal")
