"""A trained denoiser on a linear-Gaussian team: what it knows of the actions and of the noise, against the truth.

And against theory: how much of each agent's action survives when noise levels see one agent at a time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.toy.linear import LinearSystem
from tests.learning.fitting import Fitted, draw_next_state, fit_toy
from tests.learning.gaussian_theory import Sampled, sampled_law

pytestmark = pytest.mark.slow

FINE = ("num_denoising_steps=16", "sampler.solver=heun")
"""Solved well: four Euler steps, the paper's, halve the spread of what is sampled."""
PAPER = ("num_denoising_steps=4", "sampler.solver=euler")
PHASES = ("num_denoising_steps=4", "sampler.reveal_sigma=2.0", "sampler.sigma_min=0.02")
SEEDS = (0, 1)


@pytest.fixture(scope="module", params=SEEDS)
def joint(request: pytest.FixtureRequest) -> Fitted:
    return fit_toy("linear", request.param, "reveal=joint")


@pytest.fixture(scope="module", params=SEEDS)
def one(request: pytest.FixtureRequest) -> Fitted:
    return fit_toy("linear", request.param, "reveal=one")


@pytest.fixture(scope="module", params=SEEDS)
def progressive(request: pytest.FixtureRequest) -> Fitted:
    return fit_toy("linear", request.param, "reveal=progressive", "order=cycle")


@pytest.fixture(scope="module", params=SEEDS)
def phases(request: pytest.FixtureRequest) -> Fitted:
    return fit_toy("linear", request.param, "reveal=progressive", "order=cycle", *PHASES)


def system_of(fitted: Fitted) -> LinearSystem:
    assert isinstance(fitted.env.system, LinearSystem)
    return fitted.env.system


def measure(fitted: Fitted, *sampler: str) -> Sampled:
    """Regress how samples move with the actions on the true effects; pool the spread around each context's mean."""
    model, system = fitted.with_sampler(*sampler), system_of(fitted)
    context, action = fitted.contexts(2000, seed=7)
    effects = [action[:, i].double() @ torch.as_tensor(system.action_gain(i)).T for i in range(2)]
    # The same noise with and without actions, so that only what they do is left.
    moved = draw_next_state(model, context, action, seed=8) - draw_next_state(model, context, 0 * action, seed=8)
    gains = torch.linalg.lstsq(torch.stack(effects, dim=-1).flatten(0, 1), moved.flatten()[:, None]).solution

    few, draws = 32, 100
    repeated = context[:few].map(lambda tensor: tensor.repeat_interleave(draws, dim=0))
    drawn = draw_next_state(model, repeated, action[:few].repeat_interleave(draws, dim=0), seed=9)
    residual = drawn.unflatten(0, (few, draws))
    residual = residual - residual.mean(dim=1, keepdim=True)
    covariance = torch.einsum("cmi,cmj->ij", residual, residual) / (few * (draws - 1))
    return Sampled(gains[:, 0].tolist(), covariance.numpy())


def theory(fitted: Fitted, *sampler: str) -> Sampled:
    """What a perfect denoiser would sample with the same masks and solver."""
    model = fitted.with_sampler(*sampler)
    masks = model.reveal.sampling_masks(torch.Generator()).numpy()
    config, ladder = model.config.sampler, tuple(model.reveal.sigmas.tolist())
    return sampled_law(system_of(fitted), masks, ladder, config.solver, keep_noise=config.keep_noise)


def relative_error(covariance: np.ndarray, truth: np.ndarray) -> float:
    """Frobenius distance in units of the truth's norm."""
    return float(np.linalg.norm(covariance - truth) / np.linalg.norm(truth))


def test_joint_conditioning_recovers_gains_and_covariance(joint: Fitted) -> None:
    measured = measure(joint, *FINE)

    assert measured.gains == pytest.approx([1.0, 1.0], abs=0.1)
    assert relative_error(measured.covariance, system_of(joint).predictive_covariance()) < 0.2


def test_the_papers_four_steps_keep_the_gains_and_lose_the_spread(joint: Fitted) -> None:
    measured = measure(joint, *PAPER)

    assert measured.gains == pytest.approx([1.0, 1.0], abs=0.1)
    spread = np.diag(measured.covariance) / np.diag(system_of(joint).predictive_covariance())
    assert spread == pytest.approx([0.27] * 4, abs=0.06), "as theory says for four Euler steps"


@pytest.mark.parametrize("order", ["descending", "cycle"])
@pytest.mark.parametrize("sampler", [PAPER, FINE], ids=["paper", "fine"])
def test_one_agent_a_level_shares_one_gain_between_two(one: Fitted, order: str, sampler: tuple[str, ...]) -> None:
    options = (f"order={order}", *sampler)

    measured, expected = measure(one, *options), theory(one, *options)

    assert sum(measured.gains) == pytest.approx(1.05, abs=0.15), "of the 2 that the truth has"
    assert measured.gains == pytest.approx(expected.gains, abs=0.1)


@pytest.mark.parametrize("sampler", [PAPER, FINE], ids=["paper", "fine"])
def test_progressive_cycle_comes_close_to_every_agents_due(progressive: Fitted, sampler: tuple[str, ...]) -> None:
    measured, expected = measure(progressive, *sampler), theory(progressive, *sampler)

    assert measured.gains == pytest.approx(expected.gains, abs=0.1)
    assert min(measured.gains) > 0.8
    assert relative_error(measured.covariance, expected.covariance) < 0.2


def test_four_steps_that_show_everybody_early_and_keep_the_noise_lose_little(phases: Fitted) -> None:
    options = ("sampler.keep_noise=true", "sampler.solver=multistep")

    measured, expected = measure(phases, *options), theory(phases, *options)

    assert measured.gains == pytest.approx([1.0, 1.0], abs=0.1)
    assert relative_error(measured.covariance, expected.covariance) < 0.2
    truth = system_of(phases).predictive_covariance()
    assert np.trace(measured.covariance) > 0.5 * np.trace(truth), "of which four Euler steps keep 0.27"
