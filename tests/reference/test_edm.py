"""Our Euler and Heun against diffusers' Euler scheduler and EDM's Algorithm 1, for one denoiser on one ladder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dima.denoiser import Denoiser
from dima.reveal import ActionReveal
from dima.sampler import ConditionedDenoiser, SamplerConfig, sample_next_state
from tests.support.dima_models import lively_dima, make_spec
from tests.support.gaussian_team import GaussianTeam
from worldmodel.contract.random_data import random_action

SPEC = make_spec()
BATCH = 7
MASKS = torch.tensor([[False, True], [True, False], [True, True], [False, False], [True, False], [False, True]])
"""Agents that each step may see: something else at every step, so that a mix-up would show."""


def make_network() -> Denoiser:
    return lively_dima(SPEC).denoiser


def make_gaussian() -> GaussianTeam:
    return GaussianTeam(torch.tensor([0.3, -0.2]), noise_std=0.1, mean=0.4)


class Walk:
    """One sampling problem: a denoiser, inputs, masks, and the noise that our sampler draws first."""

    def __init__(self, denoiser: ConditionedDenoiser, solver: str, steps: int) -> None:
        g = torch.Generator().manual_seed(1)
        self.denoiser = denoiser
        self.context = torch.randn(BATCH, 3, SPEC.state_dim, generator=g) / 2
        self.past = random_action(SPEC, 2 * BATCH, g).unflatten(0, (BATCH, 2))
        self.action = random_action(SPEC, BATCH, g)
        self.config = SamplerConfig(solver=solver, sigma_min=0.002, sigma_max=5.0, rho=7.0, initial_noise=1.0)
        self.reveal = ActionReveal("joint", "cycle", 2, self.config.ladder(steps))
        self.reveal.masks = MASKS[:steps]
        self.reveal.firsts = self.reveal.repeats = torch.arange(steps)
        self.sigmas = self.config.ladder(steps)
        noise = torch.randn(BATCH, SPEC.state_dim, generator=torch.Generator().manual_seed(2))
        self.start = 5.0 * noise

    @torch.no_grad()
    def ours(self) -> Tensor:
        """What `sample_next_state` draws."""
        generator = torch.Generator().manual_seed(2)
        inputs = (self.context, self.past, self.action)
        return sample_next_state(self.denoiser, self.reveal, self.config, *inputs, generator)

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float, step: int) -> Tensor:
        """D(x; sigma) with the agents of `step` shown."""
        noise = torch.tensor(sigma)
        visible, only = MASKS[step].expand(1, 1, -1), torch.tensor([0])
        modulation = self.denoiser.modulation(noise[None, None], self.past, self.action, visible, only)[0]
        return self.denoiser.denoise(x, noise, self.denoiser.embed_context(self.context), modulation)


DENOISERS: dict[str, Callable[[], ConditionedDenoiser]] = {"network": make_network, "gaussian": make_gaussian}


@pytest.mark.parametrize("make", DENOISERS.values(), ids=DENOISERS)
@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_euler_equals_the_scheduler_of_diffusers(make: Callable[[], ConditionedDenoiser], steps: int) -> None:
    from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

    walk = Walk(make(), "euler", steps)
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=5.0, sigma_data=0.5, rho=7.0)
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(scheduler.sigmas, torch.tensor(walk.sigmas))
    x = walk.start
    for step, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep)
        denoised = walk.denoise(x, walk.sigmas[step], step)
        x = scheduler.step(denoised, timestep, x, pred_original_sample=denoised, return_dict=False)[0]

    torch.testing.assert_close(walk.ours(), x, rtol=1e-4, atol=1e-5)


def edm_algorithm_1(walk: Walk) -> np.ndarray:
    """Lines 1 to 13 of EDM's Algorithm 1 with t = sigma and no churn, in double precision."""

    def slope(x: np.ndarray, t: float, step: int) -> np.ndarray:
        denoised = walk.denoise(torch.tensor(x, dtype=torch.float32), t, step)
        return (x - denoised.double().numpy()) / t

    x = walk.start.double().numpy()
    for i in range(len(walk.sigmas) - 1):
        t, t_next = walk.sigmas[i], walk.sigmas[i + 1]
        d = slope(x, t, i)
        x_next = x + (t_next - t) * d
        if t_next != 0:
            d_next = slope(x_next, t_next, i)
            x_next = x + (t_next - t) * (d / 2 + d_next / 2)
        x = x_next
    return x


@pytest.mark.parametrize("make", DENOISERS.values(), ids=DENOISERS)
@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_heun_equals_edms_algorithm_1(make: Callable[[], ConditionedDenoiser], steps: int) -> None:
    walk = Walk(make(), "heun", steps)

    np.testing.assert_allclose(walk.ours().numpy(), edm_algorithm_1(walk), rtol=1e-3, atol=1e-4)
