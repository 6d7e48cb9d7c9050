"""The reverse process: from noise to the next global state, one or a few agents' actions at a time.

Euler and Heun are written out (EDM, arXiv 2206.00364, Algorithm 1 without churn), and so is DPM-Solver++(2M)
(arXiv 2211.01095); any EDM scheduler of `diffusers` can take their place. The conditioning of all noise levels is
computed once, before the walk starts.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from dima.reveal import ActionReveal
from dima.schedule import karras_sigmas, two_phase_sigmas
from worldmodel.config import Config


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Config):
    """How the next state is sampled."""

    solver: str
    """`euler` (Table 4), `heun`, `multistep` (second order at one call a step), or an EDM scheduler of diffusers by its
    name, e.g. `EDMDPMSolverMultistepScheduler`."""
    sigma_min: float
    """Lowest noise level before 0."""
    sigma_max: float
    """Highest noise level."""
    rho: float
    """Curvature of the Karras ladder."""
    initial_noise: float
    """Standard deviation of the starting noise, in units of sigma_max (1: EDM; 1 / sigma_max: DIAMOND's unit start)."""
    reveal_sigma: float | None = None
    """The noise level by which all agents are shown; null: one Karras ladder, agents along the whole of it."""
    num_refine_steps: int = 2
    """With reveal_sigma: the levels below it, out of num_denoising_steps; those above are shared among the agents."""
    keep_noise: bool = False
    """Where a level shows more agents than the one before, carry the noise estimate over instead of making it anew from
    an x that knew nothing of the new actions."""

    def validate(self) -> None:
        """Check ranges and that the solver exists."""
        self.require(0 < self.sigma_min < self.sigma_max, "sigma_min", f"between 0 and sigma_max = {self.sigma_max}")
        self.require(self.rho > 0, "rho", "a number above 0")
        self.require(self.initial_noise >= 0, "initial_noise", "at least 0")
        between = self.reveal_sigma is None or self.sigma_min < self.reveal_sigma < self.sigma_max
        self.require(between, "reveal_sigma", f"null, or between {self.sigma_min} and {self.sigma_max}")
        self.require(self.num_refine_steps >= 1, "num_refine_steps", "at least 1")
        if self.solver not in ("euler", "heun", "multistep"):
            self.require(not self.keep_noise, "keep_noise", "false, or the solver euler, heun or multistep")
            self.require(
                self.solver.startswith("EDM") and _scheduler(self.solver) is not None,
                "solver",
                "euler, heun, multistep, or an EDM scheduler of diffusers (EDMEulerScheduler,"
                " EDMDPMSolverMultistepScheduler)",
            )

    def ladder(self, num_steps: int) -> tuple[float, ...]:
        """The noise levels for `num_steps` steps, the final 0 included.

        Raises:
            ConfigError: as `num_reveal_steps`.
        """
        reveal = self.num_reveal_steps(num_steps)
        if reveal is None or self.reveal_sigma is None:
            return karras_sigmas(num_steps, self.sigma_min, self.sigma_max, self.rho)
        bottom = self.sigma_min, self.reveal_sigma
        return two_phase_sigmas(reveal, self.num_refine_steps, *bottom, self.sigma_max, self.rho)

    def num_reveal_steps(self, num_steps: int) -> int | None:
        """By which of the `num_steps` steps all agents are shown; None without reveal_sigma: the order alone decides.

        Raises:
            ConfigError: when refining leaves no step to show anybody.
        """
        if self.reveal_sigma is None:
            return None
        below = self.num_refine_steps < num_steps
        self.require(below, "num_refine_steps", f"fewer than num_denoising_steps = {num_steps}; lower it or raise that")
        return num_steps - self.num_refine_steps


def _scheduler(name: str) -> Any:
    """The class `name` of diffusers, or None."""
    import diffusers  # slow to import, and needed by nobody who stays with euler and heun

    return getattr(diffusers, name, None)


Flags = tuple[bool, ...]
"""One for each step."""


class ConditionedDenoiser(Protocol):
    """What the sampler asks of a denoiser; `dima.denoiser.Denoiser` is one, an analytic posterior mean another."""

    sigma_data: float

    def frozen(self) -> AbstractContextManager[None]:
        """A stretch in which no weight changes, around all calls for one next state."""
        ...

    def embed_context(self, context: Tensor) -> Any:
        """Whatever can be computed from the past states [B,K+1,S] before the walk starts; `denoise` is given it."""
        ...

    def modulation(self, sigma: Tensor, past_action: Tensor, action: Tensor, visible: Tensor, level: Tensor) -> Any:
        """The conditioning of J noise levels, one an index; arguments as in `Denoiser.modulation`."""
        ...

    def denoise(self, x: Tensor, sigma: Tensor, context: Any, modulation: Any) -> Tensor:
        """The expected clean state [B,S] for noisy x [B,S] at one noise level."""
        ...


def sample_next_state(
    denoiser: ConditionedDenoiser,
    reveal: ActionReveal,
    config: SamplerConfig,
    context: Tensor,
    past_action: Tensor,
    action: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Draw the next state [B,S], in the denoiser's units.

    Args:
        denoiser: the trained network.
        reveal: the ladder of noise levels, and which agents each may see.
        config: solver and noise levels.
        context: [B,K+1,S] past states, zeros where missing, in the denoiser's units.
        past_action: [B,K,N,A].
        action: [B,N,A], the current joint action.
        generator: source of the starting noise and of random orders, on the device of `context`.
    """
    masks, level = reveal.distinct_masks(generator)
    batch, _, state_dim = context.shape
    start = config.sigma_max * config.initial_noise
    x = start * torch.randn(batch, state_dim, generator=generator, device=context.device, dtype=context.dtype)
    sigmas = reveal.sigmas
    steps = sigmas[:-1]
    if config.solver == "heun":
        # The correction of a step is at the next step's noise, and sees the same agents as the step.
        steps, level = torch.cat([steps, sigmas[1:-1]]), torch.cat([level, level[:-1]])
    modulation = denoiser.modulation(steps[:, None], past_action, action, masks[:, None], level)
    past = denoiser.embed_context(context)
    kept = reveal.grows if config.keep_noise else (False,) * len(reveal.grows)
    if config.solver == "euler":
        return _euler(denoiser, x, sigmas, past, modulation, kept)
    if config.solver == "multistep":
        return _multistep(denoiser, x, sigmas, past, modulation, reveal.grows, kept)
    if config.solver == "heun":
        corrector = modulation[reveal.num_steps :]
        return _heun(denoiser, x, sigmas, past, modulation, corrector, kept)
    return _diffusers(denoiser, config, x, sigmas, past, modulation)


def _euler(
    denoiser: ConditionedDenoiser, x: Tensor, sigmas: Tensor, context: Any, modulation: Any, kept: Flags
) -> Tensor:
    noise = x / sigmas[0]
    for step in range(sigmas.shape[0] - 1):
        denoised = denoiser.denoise(x, sigmas[step], context, modulation[step])
        x, noise = _euler_step(x, denoised, noise, sigmas[step], sigmas[step + 1], kept[step])
    return x


def _euler_step(
    x: Tensor, denoised: Tensor, noise: Tensor, sigma: Tensor, following: Tensor, keep_noise: bool
) -> tuple[Tensor, Tensor]:
    """The next x, and the estimate of its noise (of unit size): the one given if that is to be kept."""
    if keep_noise:
        return denoised + following * noise, noise
    # x + (x - D) / sigma * (next - sigma), written so that the last step returns D exactly.
    return torch.lerp(denoised, x, following / sigma), (x - denoised) / sigma


def _multistep(
    denoiser: ConditionedDenoiser,
    x: Tensor,
    sigmas: Tensor,
    context: Any,
    modulation: Any,
    grows: Flags,
    kept: Flags,
) -> Tensor:
    """DPM-Solver++(2M): D is carried on along its last change, where that is not due to newly shown actions."""
    noise, previous = x / sigmas[0], x
    last = sigmas.shape[0] - 2
    width = sigmas[:-1].log().diff()
    for step in range(last + 1):
        denoised = denoiser.denoise(x, sigmas[step], context, modulation[step])
        ahead = denoised
        if 0 < step < last and not grows[step]:
            ahead = torch.lerp(denoised, previous, -width[step] / width[step - 1] / 2)
        x, noise = _euler_step(x, ahead, noise, sigmas[step], sigmas[step + 1], kept[step])
        previous = denoised
    return x


def _heun(
    denoiser: ConditionedDenoiser,
    x: Tensor,
    sigmas: Tensor,
    context: Any,
    modulation: Any,
    corrector: Any,
    kept: Flags,
) -> Tensor:
    """Second order; the correction of a step sees the same agents as the step. The last step, to 0, is Euler's."""
    noise = x / sigmas[0]
    last = sigmas.shape[0] - 2
    for step in range(last + 1):
        sigma, following = sigmas[step], sigmas[step + 1]
        denoised = denoiser.denoise(x, sigma, context, modulation[step])
        if step == last:
            return denoised
        if kept[step]:
            x, noise = _euler_step(x, denoised, noise, sigma, following, keep_noise=True)
            continue
        slope = (x - denoised) / sigma
        noise = slope
        guess = x + slope * (following - sigma)
        ahead = denoiser.denoise(guess, following, context, corrector[step])
        x = x + (slope + (guess - ahead) / following) / 2 * (following - sigma)
    return x


def _diffusers(
    denoiser: ConditionedDenoiser,
    config: SamplerConfig,
    x: Tensor,
    sigmas: Tensor,
    context: Any,
    modulation: Any,
) -> Tensor:
    """Walk with a scheduler of diffusers, which preconditions by itself: it is handed the F that gives our D.

    For comparing solvers: the scheduler is made anew for each call and waits for the device at each step.
    """
    scheduler = _scheduler(config.solver)(
        sigma_min=config.sigma_min, sigma_max=config.sigma_max, sigma_data=denoiser.sigma_data, rho=config.rho
    )
    scheduler.set_timesteps(sigmas.shape[0] - 1, device=x.device)
    for step, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep)  # sets the scheduler's step index; we scale inside `denoise`
        sigma = sigmas[step]
        denoised = denoiser.denoise(x, sigma, context, modulation[step])
        total = sigma**2 + denoiser.sigma_data**2
        output = (denoised - x * denoiser.sigma_data**2 / total) / (sigma * denoiser.sigma_data / total.sqrt())
        x = scheduler.step(output, timestep, x).prev_sample
    return x
