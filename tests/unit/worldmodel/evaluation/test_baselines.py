"""Baselines: what they learn from systems whose law is known, and their forecasts against loops in NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.toy.linear import LinearSystem
from envs.toy.system import SystemEnv
from tests.support.toy_systems import linear_config
from worldmodel.contract.checks import CHECKS
from worldmodel.contract.random_data import random_obs, random_trajectory
from worldmodel.contract.subject import Subject
from worldmodel.evaluation.baselines import LinearModel, PersistenceModel
from worldmodel.evaluation.forecast import forecast
from worldmodel.evaluation.segments import draw_segments
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, Segment, Trajectory

SPEC = EnvSpec("test", 2, 4, obs_sizes=(3, 2), action_sizes=(2, 1), episode_steps=20, appends_agent_id=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up(count: int = 4, length: int = 30, seed: int = 0) -> list[Trajectory]:
    return [random_trajectory(SPEC, length, seeded(seed + i)) for i in range(count)]


def make_system(noise_std: float = 0.0) -> LinearSystem:
    config = linear_config(memory=0.9, gain=0.3, noise_std=noise_std, episode_steps=40, system_seed=3)
    return LinearSystem(config)


def play(system: LinearSystem, seed: int) -> Trajectory:
    """An episode of `system` under uniformly random actions."""
    env, draw = SystemEnv(system), np.random.default_rng(seed)
    first = env.reset(seed)
    obs, state, actions, rewards = [first.obs], [first.state], [], []
    for _ in range(system.spec.episode_steps):
        actions.append(draw.uniform(-1, 1, (system.spec.num_agents, system.spec.action_dim)))
        result = env.step(actions[-1])
        obs.append(result.obs)
        state.append(result.state)
        rewards.append(result.reward)
    return Trajectory(
        obs=torch.from_numpy(np.stack(obs)),
        state=torch.from_numpy(np.stack(state)),
        action=torch.tensor(np.stack(actions), dtype=torch.float32),
        reward=torch.tensor(rewards, dtype=torch.float32),
        terminated=torch.zeros(len(rewards), dtype=torch.bool),
        truncated=torch.arange(len(rewards)) == len(rewards) - 1,
    )


# ---- Both keep the contract ----


def fitted(kind: Callable[..., WorldModel[Any]], context_length: int) -> Callable[[], WorldModel[Any]]:
    """Fits on episodes drawn from torch's default generator, as the checks expect of a model's weights."""
    return lambda: kind(made_up(seed=int(torch.randint(10**6, ()))), SPEC, context_length)


SUBJECTS = {
    # Persistence remembers nothing, whatever the context: the checks ask models with a context to do so.
    "persistence": Subject(fitted(PersistenceModel.fit, 0), SPEC, stochastic=False),
    "linear": Subject(fitted(LinearModel.fit, 2), SPEC, stochastic=False),
    "linear without a context": Subject(fitted(LinearModel.fit, 0), SPEC, stochastic=False),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_keeps_the_contract(subject: str, check: str) -> None:
    CHECKS[check](SUBJECTS[subject])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_has_nothing_to_train_and_learns_nothing_later(subject: str) -> None:
    model = SUBJECTS[subject].model()
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    model.update_statistics(made_up(1, seed=77)[0])

    assert model.parts() == {}
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


# ---- Persistence ----


def test_persistence_stays_where_it_starts_and_earns_the_average() -> None:
    episodes = made_up()
    segments = draw_segments(episodes, context_length=2, horizon=5, num_segments=9, generator=seeded())

    result = forecast(PersistenceModel.fit(episodes, SPEC, 2), segments, num_samples=2, generator=seeded())

    assert result.state is not None
    assert torch.equal(result.state, segments.context.state[:, None, None, -1].expand_as(result.state))
    assert torch.equal(result.obs, segments.context.obs[:, None, None, -1].expand_as(result.obs))
    mean = np.mean(np.concatenate([episode.reward.double().numpy() for episode in episodes]))
    np.testing.assert_allclose(result.reward.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(result.termination.numpy(), 1 / 30, rtol=1e-5)  # each of 4 x 30 steps ends one of 4


def test_base_rates_count_steps_not_episodes() -> None:
    """One episode of 10 steps that terminates, one of 30 that does not: 1 in 40."""
    short, long = made_up(1, 10)[0], made_up(1, 30, seed=5)[0]
    long = dataclasses.replace(long, terminated=torch.zeros_like(long.terminated), truncated=long.terminated)

    for kind in (PersistenceModel, LinearModel):
        model = kind.fit([short, long], SPEC, 0)
        assert float(model.continuation) == pytest.approx(1 - 1 / 40)


# ---- Linear ----


@pytest.mark.parametrize("context_length", [0, 2])
def test_linear_recovers_a_linear_system(context_length: int) -> None:
    """Without noise: the mean of the next state, what agents see of it, and the gain of every agent's action."""
    system = make_system()
    spec = system.spec
    model = LinearModel.fit([play(system, seed) for seed in range(12)], spec, context_length, ridge=1e-11)
    held_out = play(system, 99)
    segments = draw_segments([held_out], context_length=context_length, horizon=1, num_segments=30, generator=seeded())
    state, action = segments.context.state[:, -1], segments.action[:, 0]

    carry = model.start(segments.context, generator=seeded())
    predicted = model.step(carry, 0.5 * action, generator=seeded())[1]

    expected = system.predictive_mean(state.double().numpy(), 0.5 * action.double().numpy())
    assert predicted.state is not None
    np.testing.assert_allclose(predicted.state.numpy(), expected, atol=2e-4)
    np.testing.assert_allclose(predicted.obs.numpy(), np.stack([system.observe(s) for s in expected]), atol=2e-4)
    for agent in range(spec.num_agents):
        for dim in range(spec.action_dim):
            nudged = 0.5 * action
            nudged[:, agent, dim] += 0.1
            moved = model.step(carry, nudged, generator=seeded())[1].state
            assert moved is not None
            change = ((moved - predicted.state) / 0.1).numpy()
            np.testing.assert_allclose(change, np.tile(system.action_gain(agent)[:, dim], (30, 1)), atol=5e-3)


def test_linear_forecasts_a_linear_system_without_error() -> None:
    """Open loop over 15 steps, from contexts that begin with their episode too."""
    system = make_system()
    model = LinearModel.fit([play(system, seed) for seed in range(12)], system.spec, 2, ridge=1e-11)
    segments = draw_segments([play(system, 99)], context_length=2, horizon=15, num_segments=26, generator=seeded())

    result = forecast(model, segments, num_samples=1, generator=seeded())

    assert result.state is not None
    torch.testing.assert_close(result.state[:, 0], segments.state, atol=2e-3, rtol=0)
    torch.testing.assert_close(result.obs[:, 0], segments.obs, atol=2e-3, rtol=0)


def in_numpy(episodes: list[Trajectory], k: int, ridge: float) -> Callable[..., tuple[np.ndarray, ...]]:
    """The same ridge regressions by stacked least squares, and an open-loop forecast, step by step."""
    states, actions, rewards, obs = (
        [getattr(e, name).double().numpy() for e in episodes] for name in ("state", "action", "reward", "obs")
    )
    mean, std = np.concatenate(states).mean(0), np.concatenate(states).std(0)
    s_dim, nothing = len(mean), np.zeros_like(actions[0][0])

    def row(z: list[np.ndarray], a: list[np.ndarray]) -> np.ndarray:
        """The last K+1 of `z` and of `a`, what is missing in front being zeros, and a one."""
        z, a = [np.zeros(s_dim)] * k + z, [nothing] * k + a
        return np.concatenate([*z[-k - 1 :], *(joint.ravel() for joint in a[-k - 1 :]), [1.0]])

    def regress(x: list[np.ndarray], y: list[np.ndarray]) -> np.ndarray:
        penalty = np.sqrt(ridge * len(x)) * np.eye(len(x[0]))
        penalty[-1] = 0
        return np.linalg.lstsq(
            np.vstack([*x, penalty]), np.vstack([*y, np.zeros((len(penalty), len(y[0])))]), rcond=None
        )[0]

    standard = [list((s - mean) / std) for s in states]
    x, change = [], []
    for z, a, r in zip(standard, actions, rewards, strict=True):
        for t in range(len(a)):
            x.append(row(z[: t + 1], list(a[: t + 1])))
            change.append(np.append(z[t + 1] - z[t], r[t]))
    step_weight = regress(x, change)
    everything = [z for episode in standard for z in episode]
    obs_weight = regress([np.append(z, 1) for z in everything], [o.ravel() for episode in obs for o in episode])
    ranges = [(np.min(v, 0), np.max(v, 0)) for v in (everything, np.concatenate(rewards), np.concatenate(obs))]

    def open_loop(past: np.ndarray, past_action: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, ...]:
        z, a, out = list((past - mean) / std), list(past_action), []
        for now in action:
            a.append(now)
            predicted = row(z, a) @ step_weight
            z.append(np.clip(z[-1] + predicted[:-1], *ranges[0]))
            seen = (np.append(z[-1], 1) @ obs_weight).reshape(obs[0][0].shape)
            out.append((z[-1] * std + mean, np.clip(seen, *ranges[2]), np.clip(predicted[-1], *ranges[1])))
        return tuple(np.stack(column) for column in zip(*out, strict=True))

    return open_loop


@pytest.mark.parametrize("context_length", [0, 1, 3])
def test_linear_forecasts_equal_a_loop_in_numpy(context_length: int) -> None:
    k, ridge = context_length, 0.01
    episodes = made_up(5, 25)
    segments = draw_segments(episodes, context_length=k, horizon=8, num_segments=40, generator=seeded())

    result = forecast(LinearModel.fit(episodes, SPEC, k, ridge=ridge), segments, num_samples=1, generator=seeded())

    open_loop = in_numpy(episodes, k, ridge)
    assert result.state is not None
    for row in range(segments.num_segments):
        real = segments.context[row : row + 1].state_valid()[0]
        past = segments.context.state[row, real].double().numpy()
        done = segments.context.action[row, segments.context.valid[row]].double().numpy()
        state, obs, reward = open_loop(past, done, segments.action[row].double().numpy())
        np.testing.assert_allclose(result.state[row, 0].numpy(), state, atol=1e-4)
        np.testing.assert_allclose(result.obs[row, 0].numpy(), obs, atol=1e-4)
        np.testing.assert_allclose(result.reward[row, 0].numpy(), reward, atol=1e-4)


def growing(length: int, seed: int) -> Trajectory:
    """A state that doubles with every step."""
    base = random_trajectory(SPEC, length, seeded(seed))
    factor = 2.0 ** torch.arange(length + 1)
    return dataclasses.replace(base, state=factor[:, None] * (1 + 0.1 * base.state[:1].abs()))


def test_an_unstable_fit_stays_within_the_data() -> None:
    episodes = [growing(8, seed) for seed in range(6)]
    model = LinearModel.fit(episodes, SPEC, 0)
    carry = model.start(
        Segment.from_first(random_obs(SPEC, 1, seeded()), episodes[0].state[:1], 2, 0), generator=seeded()
    )
    largest = torch.cat([episode.state for episode in episodes]).amax(dim=0)
    seen: list[Tensor] = []

    for _ in range(300):
        carry, predicted = model.step(carry, torch.zeros(1, 2, 2), generator=seeded())
        assert predicted.state is not None
        seen.append(predicted.state[0])

    assert seen[1].gt(1.8 * seen[0]).all(), "it does not grow: the test shows nothing"
    assert torch.stack(seen).isfinite().all()
    torch.testing.assert_close(seen[-1], largest, rtol=1e-5, atol=0)


def test_every_prediction_stays_within_the_data() -> None:
    """Observation and reward are s_0 - s_1. No episode is at both extremes at once; the start is far beyond them."""
    episodes = made_up(8, 10)
    for episode in episodes:
        episode.state[:] = episode.state[0].clone()
        difference = episode.state[:, 0] - episode.state[:, 1]
        episode.obs[:, 0, 0] = difference
        episode.reward[:] = difference[1:]
    model = LinearModel.fit(episodes, SPEC, 0)
    states = torch.stack([episode.state[0] for episode in episodes])
    far = torch.tensor([[100.0, -100.0, 0.0, 0.0]])

    carry = model.start(Segment.from_first(random_obs(SPEC, 1, seeded()), far, 2, 0), generator=seeded())
    predicted = model.step(carry, torch.zeros(1, 2, 2), generator=seeded())[1]

    assert predicted.state is not None
    corner, largest = torch.stack([states[:, 0].max(), states[:, 1].min()]), (states[:, 0] - states[:, 1]).max()
    assert corner[0] - corner[1] > largest + 0.1, "the extremes coincide: the test shows nothing"
    torch.testing.assert_close(predicted.state[0, :2], corner)
    torch.testing.assert_close(predicted.obs[0, 0, 0], largest)
    torch.testing.assert_close(predicted.reward[0], largest)


def test_constant_and_copied_dimensions_do_no_harm() -> None:
    episodes = made_up()
    for episode in episodes:
        episode.state[:, 1] = 7.0
        episode.state[:, 3] = episode.state[:, 2]
    segments = draw_segments(episodes, context_length=1, horizon=5, num_segments=20, generator=seeded())

    result = forecast(LinearModel.fit(episodes, SPEC, 1), segments, num_samples=1, generator=seeded())

    assert result.state is not None
    assert (result.state[..., 1] == 7.0).all()
    torch.testing.assert_close(result.state[..., 2], result.state[..., 3], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [PersistenceModel, LinearModel])
def test_data_that_does_not_fit_is_refused(kind: type[PersistenceModel] | type[LinearModel]) -> None:
    episode = made_up(1)[0]

    with pytest.raises(ValueError, match="expected at least one episode"):
        kind.fit([], SPEC, 1)
    with pytest.raises(ValueError, match="goes on with an earlier one"):
        kind.fit([dataclasses.replace(episode, is_start=False)], SPEC, 1)
    with pytest.raises(ValueError, match=r"Trajectory.state has shape \[31, 3\]"):
        kind.fit([dataclasses.replace(episode, state=episode.state[:, :3])], SPEC, 1)
    episode.state[4, 2] = torch.nan
    with pytest.raises(FloatingPointError, match=r"state\[4, 2\] is nan"):
        kind.fit([episode], SPEC, 1)


def test_a_ridge_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="ridge = 0: expected a number above 0"):
        LinearModel.fit(made_up(1), SPEC, 1, ridge=0)
