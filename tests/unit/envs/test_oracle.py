"""The oracle keeps the contract of world models, and does what the environment does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.toy.bimodal import BimodalConfig
from envs.toy.oracle import OracleConfig, OracleModel
from envs.toy.system import SystemEnv
from tests.support.toy_systems import linear_config
from worldmodel.config import ConfigError
from worldmodel.contract.checks import CHECKS
from worldmodel.contract.subject import Subject
from worldmodel.protocol import StateDecoding
from worldmodel.types import Prediction, Segment, Transition

LINEAR = linear_config(terminate_beyond=2.0)
BIMODAL = BimodalConfig(
    num_agents=3,
    state_dim=2,
    obs_size=1,
    memory=0.7,
    gain=0.3,
    jump=0.5,
    probability=0.7,
    noise_std=0.05,
    terminate_beyond=1.5,
    episode_steps=20,
)
SYSTEMS = pytest.mark.parametrize("config", [LINEAR, BIMODAL], ids=["linear", "bimodal"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle(config: Any) -> OracleModel:
    return OracleConfig(config).build(config.build().spec)


def predict(config: Any, state: Tensor, action: Tensor, seed: int = 0) -> Prediction:
    model = oracle(config)
    context = Segment.from_first(model.decode_states(state), state, action.shape[-1], 0)
    start = model.start(context, generator=seeded(1))
    return model.step(start, action, generator=seeded(seed))[1]


@SYSTEMS
@pytest.mark.parametrize("check", CHECKS)
def test_the_contract_is_kept(config: Any, check: str) -> None:
    spec = config.build().spec
    CHECKS[check](Subject(lambda: OracleConfig(config).build(spec), spec))


def test_it_has_nothing_to_train_and_nothing_to_save() -> None:
    assert (oracle(LINEAR).parts(), oracle(LINEAR).state_dict()) == ({}, {})


@SYSTEMS
def test_what_it_says_of_a_reached_state_is_what_the_environment_says(config: Any) -> None:
    """Observations, reward and termination, row by row, with the environment's own formulas."""
    env: SystemEnv = config.build()
    rows = 200
    state = 0.8 * torch.randn(rows, env.spec.state_dim, generator=seeded(2))
    action = 3 * torch.rand(rows, env.spec.num_agents, env.spec.action_dim, generator=seeded(3)) - 1.5
    predicted = predict(config, state, action)
    assert predicted.state is not None
    controls = action.clamp(-1, 1).double().numpy()
    for row, reached in enumerate(predicted.state.double().numpy()):
        np.testing.assert_array_equal(predicted.obs[row], env.system.observe(reached).astype(np.float32))
        assert predicted.reward[row].item() == pytest.approx(env.system.reward(reached, controls[row]), rel=1e-6)
        assert bool(predicted.continuation[row]) != env.system.is_terminal(reached)
    assert 0 < predicted.continuation.mean() < 1


@SYSTEMS
def test_its_draws_are_distributed_as_the_environments(config: Any) -> None:
    """Two samples from one moment: mean, covariance and the share of each side agree within five standard errors."""
    env: SystemEnv = config.build()
    rows = 4000
    state, action = np.full(env.spec.state_dim, 0.3), np.full((env.spec.num_agents, env.spec.action_dim), -0.4)
    generator = np.random.default_rng(0)
    real = np.stack([env.system.next_state(state, action, generator) for _ in range(rows)])
    predicted = predict(
        config,
        torch.from_numpy(state).float().expand(rows, -1),
        torch.from_numpy(action).float().expand(rows, -1, -1),
    )
    assert predicted.state is not None
    drawn = predicted.state.double().numpy()
    error = 5 * np.sqrt(2 / rows)  # of a difference of two means, per standard deviation
    std = real.std(axis=0)
    np.testing.assert_array_less(np.abs(drawn.mean(0) - real.mean(0)), error * std)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(real.T), atol=error * np.sqrt(2) * (std**2).max())
    assert np.mean(drawn[:, 0] > 0.3) == pytest.approx(np.mean(real[:, 0] > 0.3), abs=error / 2)


@SYSTEMS
def test_the_same_generator_draws_the_same_noise_whatever_is_done(config: Any) -> None:
    env = config.build()
    mixture = env.system.mixture
    state = torch.randn(50, env.spec.state_dim, generator=seeded(4))
    actions = [
        2 * torch.rand(50, env.spec.num_agents, env.spec.action_dim, generator=seeded(seed)) - 1 for seed in (5, 6)
    ]
    means = [mixture(state.double().numpy(), action.double().numpy()).mean[0] for action in actions]
    residuals = []
    for action, mean in zip(actions, means, strict=True):
        reached = predict(config, state, action, seed=7).state
        assert reached is not None
        residuals.append(reached.double().numpy() - mean)
    np.testing.assert_allclose(residuals[0], residuals[1], atol=1e-6)


def test_states_are_decoded_as_the_environment_shows_them() -> None:
    env, model = LINEAR.build(), oracle(LINEAR)
    assert isinstance(model, StateDecoding)
    observed = env.reset(0)
    np.testing.assert_array_equal(model.decode_states(torch.from_numpy(observed.state)[None])[0], observed.obs)


def test_a_real_state_replaces_the_carried_one() -> None:
    model, spec = oracle(LINEAR), LINEAR.build().spec
    state = torch.randn(4, spec.state_dim, generator=seeded(8))
    start = model.start(Segment.from_first(model.decode_states(state), state, 2, 0), generator=seeded(0))
    seen = Transition(torch.zeros(4, 3, 2), model.decode_states(-state), -state, torch.zeros(4, dtype=torch.bool))
    assert torch.equal(model.view(model.observe(start, seen, generator=seeded(0))).critic, -state)


def test_the_system_of_another_environment_is_refused() -> None:
    other = dataclasses.replace(LINEAR, num_agents=2)
    with pytest.raises(ConfigError, match=r"OracleConfig\.system is EnvSpec\(env_id='toy/linear-3x2'"):
        OracleConfig(LINEAR).build(other.build().spec)
    with pytest.raises(ConfigError, match="expected LinearConfig or BimodalConfig"):
        OracleConfig("toy/linear")  # type: ignore[arg-type]
