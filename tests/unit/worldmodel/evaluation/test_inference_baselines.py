"""Baselines of inference: the mean, and a regression that is exact where the world is linear and Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel.evaluation.inference_baselines import GaussianRegression, LinearInference, MeanState
from worldmodel.evaluation.inference_metrics import score_draws
from worldmodel.evaluation.moments import all_moments
from worldmodel.evaluation.units import Units
from worldmodel.history import infer_for_agents
from worldmodel.types import Trajectory

GAIN = torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.0, 1.0]], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0.0], [0.3, 0.4]], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """y = x GAIN + 1 + noise of covariance ROOT ROOT'."""
    x = torch.randn(rows, 3, generator=seeded(seed), dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1]) + 5
    noise = torch.randn(rows, 2, generator=seeded(seed + 1), dtype=torch.float64)
    return x, x @ GAIN + 1 + noise @ ROOT.T


def test_a_linear_gaussian_law_is_found() -> None:
    x, y = pairs(20_000)
    fitted = GaussianRegression.fit(x, y, torch.arange(20_000) // 100)
    draws = fitted.sample(x[:2], 40_000, seeded()).double()
    np.testing.assert_allclose(draws.mean(dim=0), x[:2] @ GAIN + 1, atol=0.03)
    np.testing.assert_allclose(torch.cov(draws[:, 0].T), ROOT @ ROOT.T, atol=0.02)


def test_residuals_are_honest_with_more_weights_than_rows() -> None:
    """In-sample residuals would be about 0."""
    x = torch.randn(50, 80, generator=seeded(), dtype=torch.float64)
    y = torch.randn(50, 2, generator=seeded(1), dtype=torch.float64)
    fitted = GaussianRegression.fit(x, y, torch.arange(50) // 5)
    variance = (fitted.root @ fitted.root.T).diagonal()
    assert bool((variance > 0.7).all())
    assert fitted.ridge == 1.0


def test_entries_that_do_not_vary_do_no_harm() -> None:
    x, y = pairs(500)
    x[:, 1], y = 3.0, torch.cat([y, torch.full_like(y[:, :1], 7.0)], dim=1)
    draws = GaussianRegression.fit(x, y, torch.arange(500) // 50).sample(x[:4], 3, seeded())
    assert bool(torch.isfinite(draws).all())
    np.testing.assert_allclose(draws[..., 2], 7.0, atol=1e-5)


def episodes(count: int = 8, length: int = 40) -> list[Trajectory]:
    """Agent 0 observes the first entry of the state with noise, agent 1 the second one exactly."""
    made = []
    for number in range(count):
        state = torch.randn(length + 1, 2, generator=seeded(number))
        noise = 0.5 * torch.randn(length + 1, generator=seeded(1000 + number))
        obs = torch.stack([state[:, :1] + noise[:, None], state[:, 1:]], dim=1)
        made.append(
            Trajectory(
                obs=obs,
                state=state,
                action=torch.zeros(length, 2, 1),
                reward=torch.zeros(length),
                terminated=torch.zeros(length, dtype=torch.bool),
                truncated=torch.arange(length) == length - 1,
            )
        )
    return made


@pytest.mark.parametrize(("auxiliary", "history_steps"), [("own", 0), ("own", 3), ("joint", 0)])
def test_each_agent_knows_what_it_sees(auxiliary: str, history_steps: int) -> None:
    training, fresh = episodes(20), all_moments(episodes(28)[20:], 1000)
    linear = LinearInference(training, auxiliary, history_steps)  # type: ignore[arg-type]
    drawn = infer_for_agents(linear, fresh.history(history_steps), fresh.state, num_samples=32, generator=seeded())
    assert drawn.shape == (32, fresh.num_moments, 2, 2)
    units = Units(torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.bool))
    scores = score_draws(drawn, fresh.state, units, seeded())
    error = scores.error_mean.mean(dim=0)  # [agent, dimension]
    seen = 0.2  # variance of the state given noise of variance 0.25: 1 / (1 + 4)
    expected = [[seen, 0.0], [seen, 0.0]] if auxiliary == "joint" else [[seen, 1.0], [1.0, 0.0]]
    np.testing.assert_allclose(error, expected, atol=0.2)
    assert float(scores.covered[90][:, 0, 0].mean()) == pytest.approx(0.9, abs=0.06)


def test_one_episode_suffices() -> None:
    linear = LinearInference(episodes(1), "own", 0)
    assert len(linear.regressions) == 2


def test_own_observations_need_an_agent() -> None:
    linear = LinearInference(episodes(2), "own", 0)
    with pytest.raises(ValueError, match="agent is None"):
        linear.infer(torch.zeros(3, 1, 2, 1), num_samples=2, generator=seeded())


def test_the_mean_is_that_of_the_training_states() -> None:
    made = episodes(3)
    inferred = MeanState(made).infer(torch.zeros(4, 1, 2, 1), num_samples=2, generator=seeded())
    expected = torch.cat([each.state for each in made]).mean(dim=0)
    torch.testing.assert_close(inferred, expected.expand(2, 4, 2))
