"""Prediction error, spread and action gains on a linear-Gaussian team, where all of them are known in closed form.

The environment's own law as a model is right in every way that is measured; one that ignores actions has gains of 0.
Actions are normal and small, so that every difference of states is normal: E|d| = sqrt(2 / pi) * its deviation.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.collector import Collector
from envs.perturb import perturb_one_agent, try_actions
from envs.toy.linear import LinearSystem
from envs.toy.oracle import OracleModel
from tests.support.deaf_oracle import DeafOracle
from tests.support.toy_systems import linear_config
from worldmodel.evaluation.action_gain import describe_gain, model_changes
from worldmodel.evaluation.baselines import LinearModel, PersistenceModel
from worldmodel.evaluation.curves import Bootstrap, describe_curve, step_errors
from worldmodel.evaluation.forecast import forecast
from worldmodel.evaluation.segments import TestSegments, draw_segments
from worldmodel.evaluation.spread import describe_spread
from worldmodel.evaluation.units import Units
from worldmodel.protocol import WorldModel
from worldmodel.types import Trajectory

CONFIG = linear_config(memory=0.9, episode_steps=24, system_seed=1)
SYSTEM = LinearSystem(CONFIG)
ACTION_STD = 0.2
"""Five deviations from the bounds: clipping does not count."""
HORIZON = 20
MARKS = [1, 5, 15, 20]
FITTED = 200
"""Episodes for fitting."""
SEGMENTS = 400
"""Episodes for testing, a segment each."""
SAMPLES = 16


class NormalAgent:
    """Normal actions of deviation `ACTION_STD`. Keeps the `Agent` protocol; no carry."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def begin(self, obs: Tensor, state: Tensor) -> None:
        """Nothing to remember."""

    def act(self, carry: None, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, None]:
        shape = (obs.shape[0], CONFIG.num_agents, CONFIG.action_dim)
        return (ACTION_STD * torch.randn(shape, generator=self._generator)).clamp(-1, 1), None


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def episodes() -> tuple[list[Trajectory], list[Trajectory]]:
    """(for fitting, for testing)."""
    collected = Collector(CONFIG, 50, seed=0).collect(NormalAgent(seeded(0)), num_episodes=FITTED + SEGMENTS)
    return collected[:FITTED], collected[FITTED:]


@cache
def units() -> Units:
    return Units.of(torch.cat([episode.state for episode in episodes()[0]]))


@cache
def segments() -> TestSegments:
    """One of every episode, from a random start: independent, as the intervals take them to be."""
    starts = CONFIG.episode_steps - HORIZON + 1
    every = draw_segments(
        episodes()[1], context_length=0, horizon=HORIZON, num_segments=starts * SEGMENTS, generator=seeded(1)
    )
    return every[starts * torch.arange(SEGMENTS) + torch.randint(starts, (SEGMENTS,), generator=seeded(1))]


def state_forecast(model: WorldModel[Any], num_samples: int = SAMPLES) -> Tensor:
    """[B,M,H,S]."""
    predicted = forecast(model, segments(), num_samples=num_samples, generator=seeded(2))
    assert predicted.state is not None
    return predicted.state


def curve(model: WorldModel[Any], num_samples: int = SAMPLES) -> dict[str, Any]:
    truth = segments()
    errors = step_errors(state_forecast(model, num_samples), truth.state, truth.valid, units())
    return describe_curve(errors, Bootstrap(SEGMENTS), MARKS)


@cache
def transition() -> np.ndarray:
    """A [S,S]."""
    return SYSTEM.predictive_mean(np.eye(4), np.zeros((4, 3, 2))).T


def mean_absolute(covariance: np.ndarray) -> float:
    """E|d| for normal d [S] of mean zero, in standard deviations of the data, mean over dimensions."""
    deviation = np.sqrt(np.diag(covariance)) / units().std.numpy()
    return float(np.sqrt(2 / np.pi) * deviation.mean())


def accumulated(noise: np.ndarray, steps: int) -> np.ndarray:
    """Sum of A^k noise A^kT for k < steps: the covariance that fresh `noise` at every step adds up to."""
    total = np.zeros((4, 4))
    for k in range(steps):
        power = np.linalg.matrix_power(transition(), k)
        total += power @ noise @ power.T
    return total


def noise_of_actions() -> np.ndarray:
    """Covariance of sum_i B_i a_i."""
    gain = np.concatenate([SYSTEM.action_gain(agent) for agent in range(CONFIG.num_agents)], axis=1)  # B [S, N*A]
    return ACTION_STD**2 * gain @ gain.T


def error_of_the_law(step: int) -> float:
    """Two independent draws from N(m_t, Sigma_t) differ by a draw from N(0, 2 Sigma_t)."""
    return mean_absolute(2 * accumulated(SYSTEM.predictive_covariance(), step))


def error_of_the_best_mean(step: int) -> float:
    """A draw differs from its conditional mean, which is what least squares finds, by a draw from N(0, Sigma_t)."""
    return mean_absolute(accumulated(SYSTEM.predictive_covariance(), step))


def error_of_staying(step: int) -> float:
    """s_(u+t) - s_u = (A^t - 1) s_u + what actions and noise add in t steps, averaged over the starts u drawn."""
    both = noise_of_actions() + SYSTEM.predictive_covariance()
    first = (1 + CONFIG.noise_std**2 / (1 - CONFIG.memory**2)) * np.eye(4)
    away = np.linalg.matrix_power(transition(), step) - np.eye(4)
    per_start = []
    for start in range(CONFIG.episode_steps - HORIZON + 1):
        power = np.linalg.matrix_power(transition(), start)
        here = power @ first @ power.T + accumulated(both, start)
        per_start.append(mean_absolute(away @ here @ away.T + accumulated(both, step)))
    counts = torch.bincount(segments().start, minlength=len(per_start)).numpy()
    return float(np.average(per_start, weights=counts))


def assert_follows(described: dict[str, Any], expected: Any, what: str) -> None:
    for mark in MARKS:
        low, high = described["e_ci95"][mark - 1]
        assert low <= expected(mark) <= high, f"{what} at step {mark}: {expected(mark)} outside [{low}, {high}]"
        assert high - low < 0.2 * expected(mark), "the interval is too wide to say anything"


def test_the_error_of_the_law_is_that_of_two_independent_draws() -> None:
    assert_follows(curve(OracleModel(SYSTEM)), error_of_the_law, "the law")


def test_the_error_of_a_linear_fit_is_that_of_a_draw_from_its_mean() -> None:
    fitted = LinearModel.fit(episodes()[0], SYSTEM.spec, 0)
    assert_follows(curve(fitted, num_samples=1), error_of_the_best_mean, "the linear fit")


def test_the_error_of_persistence_is_how_far_the_state_moves() -> None:
    persistence = PersistenceModel.fit(episodes()[0], SYSTEM.spec, 0)
    assert_follows(curve(persistence, num_samples=1), error_of_staying, "persistence")


def test_cumulated_errors_are_the_sum_of_the_closed_forms() -> None:
    described = curve(OracleModel(SYSTEM))
    for mark in MARKS:
        low, high = described["ci95"][str(mark)]
        assert low <= sum(error_of_the_law(step) for step in range(1, mark + 1)) <= high


def test_the_law_is_as_unsure_as_it_is_wrong() -> None:
    truth = segments()
    described = describe_spread(
        state_forecast(OracleModel(SYSTEM)), truth.state, truth.valid, units(), Bootstrap(SEGMENTS), MARKS
    )
    for mark in map(str, MARKS):
        assert described["ranks"][mark]["p_value"] > 0.01
        # Relative deviation of a standard deviation over B segments of S dimensions: 1 / sqrt(2 B S) = 0.018.
        assert described["spread_skill"][mark] == pytest.approx(1, abs=4 * 0.018)


class Overconfident(OracleModel):
    """Draws with a third of the noise."""

    def __init__(self) -> None:
        super().__init__(LinearSystem(dataclasses.replace(CONFIG, noise_std=CONFIG.noise_std / 3)))


def test_a_model_that_is_too_sure_is_found_out() -> None:
    truth = segments()
    described = describe_spread(
        state_forecast(Overconfident()), truth.state, truth.valid, units(), Bootstrap(SEGMENTS), MARKS
    )
    for mark in map(str, MARKS):
        assert described["ranks"][mark]["p_value"] < 1e-6
        assert described["spread_skill"][mark] == pytest.approx(1 / 3, abs=0.05)


@cache
def perturbed() -> tuple[TestSegments, Tensor, Tensor]:
    """Moments, the joint actions tried there [B,1+N,N,A], and the true changes [B,N,S]."""
    moments = segments()[: SEGMENTS // 4]
    actions = perturb_one_agent(moments.action[:, 0], SYSTEM.spec, perturbation_std=0.3, generator=seeded(3))
    reached = try_actions(CONFIG.build(), episodes()[1], episode=moments.episode, start=moments.start, actions=actions)
    return moments, actions, reached[:, 1:] - reached[:, :1]


def gains(model: WorldModel[Any]) -> dict[str, Any]:
    moments, actions, true = perturbed()
    changed = model_changes(model, moments.context, actions, num_samples=8, generator=seeded(4))
    return describe_gain(changed, true, units(), Bootstrap(moments.num_segments))


def test_the_law_has_gains_of_one() -> None:
    described = gains(OracleModel(SYSTEM))
    assert described["action_gain"] == pytest.approx([1.0] * 3, abs=1e-3)
    assert described["action_gain_r2"] == pytest.approx([1.0] * 3, abs=1e-3)
    for low, high in described["action_gain_ci95"]:
        assert 1 - 1e-3 < low <= high < 1 + 1e-3


def test_a_model_that_ignores_actions_has_gains_of_zero() -> None:
    described = gains(DeafOracle(SYSTEM))
    assert described == {
        "action_gain": [0.0] * 3,
        "action_gain_ci95": [[0.0, 0.0]] * 3,
        "action_gain_r2": [0.0] * 3,
    }


def test_a_linear_fit_has_gains_of_nearly_one() -> None:
    described = gains(LinearModel.fit(episodes()[0], SYSTEM.spec, 0))
    # The weights of 4800 transitions are off by noise_std / (ACTION_STD * sqrt(4800)) = 0.014, against 0.5 / sqrt(4).
    assert described["action_gain"] == pytest.approx([1.0] * 3, abs=0.05)
    assert min(described["action_gain_r2"]) > 0.99


def test_persistence_has_gains_of_zero() -> None:
    described = gains(PersistenceModel.fit(episodes()[0], SYSTEM.spec, 0))
    assert (described["action_gain"], described["action_gain_r2"]) == ([0.0] * 3, [0.0] * 3)
