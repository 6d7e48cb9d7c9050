"""The mixture toy follows the law it publishes, hides the mode, and pays simple policies what its formulas say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.base import EnvError, RestorableEnv
from envs.play import play, random_actions
from envs.toy.mixture import MixtureConfig, MixtureEnv, MixtureSystem
from worldmodel.config import ConfigError


def mixture(**changes: Any) -> MixtureConfig:
    values = {
        "num_agents": 2,
        "state_dim": 4,
        "num_modes": 4,
        "separation": 10.0,
        "weights": None,
        "std": 0.1,
        "context_size": 2,
        "context_gain": 0.5,
        "layout_seed": 0,
        "episode_steps": 50,
    }
    return MixtureConfig(**(values | changes))


def drawn(system: MixtureSystem, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contexts [M,C], modes [M] and states [M,S]."""
    generator = np.random.default_rng(0)
    context, mode, state = zip(*(system.draw(generator) for _ in range(number)), strict=True)
    return np.stack(context), np.array(mode), np.stack(state)


def smallest_distance(points: np.ndarray) -> float:
    return min(float(np.linalg.norm(a - b)) for i, a in enumerate(points) for b in points[:i])


@pytest.mark.parametrize("changes", [{}, {"state_dim": 8, "num_modes": 8, "std": 0.3, "weights": [1] * 8}])
def test_draws_follow_the_published_law(changes: dict[str, Any]) -> None:
    config = mixture(**changes)
    system, number = MixtureSystem(config), 10_000
    context, mode, state = drawn(system, number)
    law = system.law(context)
    assert law.mean.shape == (config.num_modes, number, config.state_dim)
    error = np.sqrt(law.weight * (1 - law.weight) / number)
    np.testing.assert_array_less(np.abs(np.bincount(mode) / number - law.weight), 5 * error)
    residual = (state - law.mean[mode, np.arange(number)]) / law.std
    for index in range(config.num_modes):
        inside = residual[mode == index]
        np.testing.assert_allclose(inside.mean(axis=0), 0, atol=5 / np.sqrt(len(inside)))
        np.testing.assert_allclose(np.cov(inside.T), np.eye(config.state_dim), atol=6 / np.sqrt(len(inside)))
    # Whole conditional moments, by regression of the state on the context: intercept E[s | 0], slope L.
    design = np.concatenate([context, np.ones((number, 1))], axis=1)
    solution, *_ = np.linalg.lstsq(design, state, rcond=None)
    np.testing.assert_allclose(solution[:-1].T, system.context_gain, atol=0.05)
    np.testing.assert_allclose(solution[-1], law.weight @ system.centres, atol=0.05)
    assert np.abs(context).max() <= 1
    np.testing.assert_allclose(context.mean(axis=0), 0, atol=5 * np.sqrt(1 / 3 / number))
    np.testing.assert_allclose(context.var(axis=0), 1 / 3, rtol=0.05)


@pytest.mark.parametrize("state_dim", [2, 4, 8])
@pytest.mark.parametrize("num_modes", [2, 4, 8])
@pytest.mark.parametrize("separation", [5.0, 20.0])
def test_the_nearest_centres_are_as_far_apart_as_asked(state_dim: int, num_modes: int, separation: float) -> None:
    system = MixtureSystem(mixture(state_dim=state_dim, num_modes=num_modes, separation=separation))
    assert system.centres.shape == (num_modes, state_dim)
    assert smallest_distance(system.centres) == pytest.approx(separation * 0.1)
    # Well spread: no centre is much farther out than the closest packing would need.
    assert np.linalg.norm(system.centres, axis=1).max() < 1.5 * separation * 0.1
    assert np.abs(system.targets).max() <= 0.8
    assert smallest_distance(system.targets) > 0.6
    np.testing.assert_allclose(np.linalg.norm(system.context_gain, axis=0), 0.5)


def test_weights_are_unequal_by_default_and_normalised() -> None:
    np.testing.assert_allclose(MixtureSystem(mixture()).weight, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(MixtureSystem(mixture(weights=[2, 1, 1, 4])).weight, [0.25, 0.125, 0.125, 0.5])


def test_the_layout_is_that_of_its_seed() -> None:
    first, same, other = (MixtureSystem(mixture(layout_seed=seed)) for seed in (0, 0, 1))
    for name in ("centres", "targets", "context_gain"):
        np.testing.assert_array_equal(getattr(first, name), getattr(same, name))
        assert not np.allclose(getattr(first, name), getattr(other, name))


def episodes(env: MixtureEnv, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations [M,N,O] and states [M,S] of many moments."""
    spec = env.spec
    played = [play(env, seed, random_actions(spec, spec.episode_steps, seed)) for seed in range(number)]
    return np.concatenate([p.obs for p in played]), np.concatenate([p.state for p in played])


def test_agents_see_the_context_and_their_id_only() -> None:
    obs, _ = episodes(mixture(num_agents=3).build(), 2)
    np.testing.assert_array_equal(obs[:, 0, :2], obs[:, 1, :2])
    np.testing.assert_array_equal(obs[:, 0, :2], obs[:, 2, :2])
    np.testing.assert_array_equal(obs[:, :, 2:], np.broadcast_to(np.eye(3), (len(obs), 3, 3)))


def test_observations_are_blind_to_the_mode() -> None:
    """Contexts have the same distribution in every mode, and a law's mean is all that they tell of the state."""
    config = mixture()
    obs, state = episodes(config.build(), 100)
    system, context = MixtureSystem(config), obs[:, 0, :2].astype(np.float64)
    mode = system.nearest_mode(state, context)
    for index in range(4):
        inside = context[mode == index]
        np.testing.assert_allclose(inside.mean(axis=0), 0, atol=5 * np.sqrt(1 / 3 / len(inside)))
        np.testing.assert_allclose(np.quantile(inside, [0.25, 0.5, 0.75], axis=0).T, [[-0.5, 0, 0.5]] * 2, atol=0.15)
    # Nor does the moment before tell: modes follow each other independently.
    before, after = mode.reshape(100, 51)[:, :-1].ravel(), mode.reshape(100, 51)[:, 1:].ravel()
    joint = np.bincount(before * 4 + after, minlength=16).reshape(4, 4) / len(before)
    np.testing.assert_allclose(joint, np.outer(system.weight, system.weight), atol=0.02)


def test_the_config_gives_the_law_of_a_history() -> None:
    """Exact for what an agent observed, in float32: the state lies within a few std of one of the means."""
    config = mixture()
    obs, state = episodes(config.build(), 20)
    history = np.stack([obs[:-3], obs[1:-2], obs[2:-1], obs[3:]], axis=1)  # [B,m+1,N,O]
    law = config.state_law(history)
    assert law.mean.shape == (4, len(history), 4)
    np.testing.assert_allclose(law.weight, [0.1, 0.2, 0.3, 0.4])
    distance = np.linalg.norm(state[3:] - law.mean, axis=-1).min(axis=0)
    assert distance.max() < 6 * law.std
    assert np.mean(distance**2) == pytest.approx(4 * 0.1**2, rel=0.05)
    np.testing.assert_array_equal(law.mean, MixtureSystem(config).law_of_obs(obs[3:]).mean)


Policy = Callable[[MixtureSystem, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""(system, obs [N,O], state [S], generator) -> action [N]."""


def _known(system: MixtureSystem, obs: np.ndarray, state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return system.targets[system.nearest_mode(state, obs[0, :2])]


def _averaged(system: MixtureSystem, obs: np.ndarray, state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return system.weight @ system.targets


def _sampled(system: MixtureSystem, obs: np.ndarray, state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    law = system.law_of_obs(obs)
    guess = law.mean[generator.choice(4, p=law.weight)] + law.std * generator.standard_normal(4)
    return _known(system, obs, guess, generator)


def _apart(system: MixtureSystem, obs: np.ndarray, state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.array([_sampled(system, obs, state, generator)[agent] for agent in range(len(obs))])


def _likeliest(system: MixtureSystem, obs: np.ndarray, state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return system.targets[system.weight.argmax()]


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("mode_known", _known),
        ("modes_averaged", _averaged),
        ("mode_sampled", _sampled),
        ("mode_sampled_apart", _apart),
        ("likeliest_mode", _likeliest),
    ],
)
@pytest.mark.parametrize("weights", [None, [1, 1, 1, 1]])
def test_simple_policies_earn_what_the_formulas_say(name: str, policy: Policy, weights: list[int] | None) -> None:
    env = mixture(weights=weights, episode_steps=2000).build()
    generator = np.random.default_rng(1)
    obs, state = env.reset(0)
    rewards = []
    for _ in range(2000):
        obs, state, reward, *_ = env.step(policy(env.system, obs, state, generator)[:, None])
        rewards.append(reward)
    expected = env.system.expected_rewards()[name]
    assert np.mean(rewards) == pytest.approx(expected, abs=5 * np.std(rewards) / np.sqrt(2000) + 1e-9)


def test_who_knows_the_state_earns_more_than_who_samples_and_that_more_than_who_averages() -> None:
    system = MixtureSystem(mixture())
    rewards = system.expected_rewards()
    assert rewards["mode_known"] == 1
    assert rewards["mode_sampled"] == pytest.approx(np.sum(system.weight**2), abs=0.01)
    assert rewards["likeliest_mode"] == pytest.approx(0.4, abs=0.01)
    assert rewards["modes_averaged"] < 0.05


def test_the_reward_is_one_at_the_target_and_falls_with_the_square_distance() -> None:
    system = MixtureSystem(mixture())
    action = system.targets[2][:, None]
    assert float(system.reward(2, action)) == 1
    assert float(system.reward(2, action + [[0.25], [0.0]])) == pytest.approx(np.exp(-0.5))
    batch = system.reward(np.array([0, 2]), np.stack([action, action]))
    assert batch[1] == 1
    assert batch[0] < 0.1


def test_an_episode_is_a_function_of_seed_and_actions_and_ends_at_its_limit() -> None:
    config = mixture(episode_steps=5)
    first, second = config.build(), config.build()
    actions = random_actions(first.spec, 6, 0)
    episode = play(first, 3, actions)
    play(second, 4, actions[:2])
    assert episode.difference(play(second, 3, actions)) is None
    assert episode.difference(play(second, 4, actions)) is not None
    assert (episode.length, episode.terminated, episode.truncated) == (5, False, True)
    with pytest.raises(EnvError, match="after the episode's end"):
        first.step(actions[0])
    with pytest.raises(EnvError, match="no picture"):
        first.render()


def test_a_moment_can_be_gone_back_to() -> None:
    env = mixture().build()
    assert isinstance(env, RestorableEnv)
    env.reset(0)
    snapshot, action = env.snapshot(), np.zeros((2, 1), np.float32)
    before = [env.step(action) for _ in range(3)]
    env.restore(snapshot)
    after = [env.step(action) for _ in range(3)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.state, other.state)
        assert one.reward == other.reward


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_modes": 1}, "num_modes = 1: expected at least 2"),
        ({"state_dim": 1}, "state_dim = 1"),
        ({"separation": 0}, "separation = 0.0: expected above 0"),
        ({"std": 0}, "std = 0.0"),
        ({"weights": [1, 2]}, "expected null or num_modes = 4 numbers above 0"),
        ({"weights": [1, 2, 3, 0]}, "numbers above 0"),
        ({"weights": []}, "numbers above 0"),
        ({"context_size": 0}, "context_size = 0"),
        ({"layout_seed": -1}, "layout_seed = -1"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture(**changes)
