"""How much of every agent's action, and of the noise, a perfect denoiser's samples keep: ladders and solvers compared.

s' = b * sum_i a_i + r * noise, all normal, actions and noise with half the variance each; everything is linear, so a
few numbers follow the sampler exactly. Prints Markdown in a second: python benchmarks/prediction/reveal_theory.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from dima.schedule import karras_sigmas, two_phase_sigmas

SIGMA_DATA, SIGMA_MAX, RHO = 0.5, 5.0, 7.0
SPREADS = (0.05, 0.1, 0.3, 1.0)
"""Standard deviation of s' given the state before, in the data's standard deviations."""
EXPLAINED = 0.5
"""The share of that variance that actions make up."""

READING = """\
# What samples keep of actions and of noise, if the denoiser were perfect

Printed by `benchmarks/prediction/reveal_theory.py`. Half of the variance of the next state, given the one before, is
made by actions and half is noise; `std` is the square root of that variance, in the data's standard deviations. Each
cell: the smallest agent's gain (truth: 1), the mean's relative error (0), the share of the noise's variance that is
kept (1). `offset noise` is what training adds to every noise level.

- From sigma down to 0, a well-solved ODE keeps r / sqrt(r^2 + sigma^2) of where x was, r being the standard deviation
  that is left when all is known: an agent shown at sigma lacks that much of its gain. Few Euler steps keep less, of the
  noise's spread as well.
- With the noise kept where agents are newly shown, x = D + sigma' * noise forgets where it was but for
  r^2 / (r^2 + sigma^2): the square. Then everybody may be shown later, and the start's mean of 0 is forgotten too.
- With everybody shown, second order from the last two calls (multistep) keeps two to three times the spread of Euler at
  the same cost. Heun spends two calls a step, and with as few steps as these it overshoots.
- Above reveal_sigma it hardly matters how many levels share the agents: with 17 agents, 4 do.
- Offset noise of 0.3 makes the denoiser trust x too little to keep a spread below it, whatever the ladder.
"""


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A way to sample with J network calls (twice as many with heun, but for the last step)."""

    name: str
    sigmas: tuple[float, ...]
    """J + 1 levels, the final 0 included."""
    masks: np.ndarray
    """[J,N] bool: whose actions a level sees."""
    solver: str = "euler"
    keep_noise: bool = False

    @property
    def num_calls(self) -> int:
        """Network calls for one sample."""
        steps = len(self.masks)
        return 2 * steps - 1 if self.solver == "heun" else steps


@dataclasses.dataclass(frozen=True)
class Law:
    """What is sampled. The truth: gains of 1, no error, and 1."""

    gains: np.ndarray
    """[N] of each agent's action."""
    error: float
    """Root mean square of the mean's error, relative to all that actions do."""
    kept: float
    """Sampled variance over the true one, given all actions."""


def sampled_law(scheme: Scheme, spread: float, offset: float) -> Law:
    """Follow x as a row vector of its response to each action (in units of the true effect) and to the start."""
    num_agents = scheme.masks.shape[1]
    variance = (SIGMA_DATA * spread) ** 2
    of_action, of_noise = EXPLAINED * variance / num_agents, (1 - EXPLAINED) * variance

    def denoise(x: np.ndarray, sigma: float, shown: np.ndarray) -> np.ndarray:
        left = of_noise + of_action * (~shown).sum()
        mean = np.append(shown, 0.0)
        return mean + left / (left + sigma**2 + offset**2) * (x - mean)

    x = np.append(np.zeros(num_agents), scheme.sigmas[0])
    noise, before = x / scheme.sigmas[0], x
    for j, shown in enumerate(scheme.masks):
        sigma, following = scheme.sigmas[j], scheme.sigmas[j + 1]
        grows = shown.sum() > (scheme.masks[j - 1].sum() if j > 0 else 0)
        denoised = denoise(x, sigma, shown)
        if scheme.keep_noise and grows:
            x, before = denoised + following * noise, denoised
            continue
        noise = (x - denoised) / sigma
        guess = denoised + following * noise
        if scheme.solver == "multistep" and j > 0 and following > 0 and not grows:
            widths = np.log(scheme.sigmas[j - 1] / sigma), np.log(sigma / following)
            ahead = denoised + (denoised - before) * widths[1] / widths[0] / 2
            guess = ahead + following * (x - ahead) / sigma
        if scheme.solver == "heun" and following > 0:
            ahead = (guess - denoise(guess, following, shown)) / following
            guess = x + (following - sigma) * (noise + ahead) / 2
        x, before = guess, denoised
    error = float(np.sqrt(np.square(1 - x[:-1]).mean()))
    return Law(x[:-1], error, float(x[-1] ** 2 / of_noise))


def growing(num_agents: int, num_levels: int, num_reveal_levels: int) -> np.ndarray:
    """[J,N] masks that show everybody by `num_reveal_levels`, evenly, and keep them."""
    level = 1 + np.arange(num_levels)[:, None]
    return np.arange(num_agents) < -(-num_agents * level // num_reveal_levels)


def schemes(num_agents: int, calls: int, num_refine: int, sigma_min: float) -> Iterator[Scheme]:
    """What is compared at one number of network calls."""
    long = karras_sigmas(calls, 0.002, SIGMA_MAX, RHO)
    everybody = np.ones((calls, num_agents), dtype=bool)
    if calls >= num_agents:
        owner = np.arange(calls) * num_agents // calls
        yield Scheme("one, blocks (the paper)", long, owner[:, None] == np.arange(num_agents))
        yield Scheme("progressive, cycle", long, growing(num_agents, calls, num_agents))
    yield Scheme("joint", long, everybody)
    yield Scheme("joint, multistep", long, everybody, "multistep")
    fewer = calls // 2 + 1
    yield Scheme("joint, heun", karras_sigmas(fewer, 0.002, SIGMA_MAX, RHO), everybody[:fewer], "heun")
    reveal = calls - num_refine
    masks = growing(num_agents, calls, reveal)
    for level in (1.0, 2.0):
        ladder = two_phase_sigmas(reveal, num_refine, sigma_min, level, SIGMA_MAX, RHO)
        yield Scheme(f"all shown by {level:g}", ladder, masks)
        yield Scheme(f"all shown by {level:g}, noise kept", ladder, masks, "euler", keep_noise=True)
        yield Scheme(f"all shown by {level:g}, noise kept, multistep", ladder, masks, "multistep", keep_noise=True)
    short = karras_sigmas(calls, sigma_min, SIGMA_MAX, RHO)
    yield Scheme(f"joint from {sigma_min:g}, noise kept, multistep", short, everybody, "multistep", keep_noise=True)


def table(num_agents: int, calls: int, num_refine: int, sigma_min: float, offset: float) -> str:
    """A heading and a Markdown table of `schemes`: smallest gain, error of the mean, variance kept."""
    lines = [
        f"\n### {num_agents} agents, {calls} calls ({num_refine} to refine, down to {sigma_min:g}),"
        f" offset noise {offset:g}\n",
        "| | calls | " + " | ".join(f"std {spread:g}" for spread in SPREADS) + " |",
        "|---" * (2 + len(SPREADS)) + "|",
    ]
    for scheme in schemes(num_agents, calls, num_refine, sigma_min):
        laws = [sampled_law(scheme, spread, offset) for spread in SPREADS]
        cells = [f"{law.gains.min():.2f} {law.error:.2f} {law.kept:.2f}" for law in laws]
        lines.append(f"| {scheme.name} | {scheme.num_calls} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print all tables."""
    print(READING)
    for offset, sigma_min in ((0.0, 0.02), (0.3, 0.1)):
        for num_agents, calls, num_refine in ((2, 4, 2), (4, 6, 2), (6, 8, 2), (8, 10, 2), (17, 19, 2), (17, 8, 4)):
            print(table(num_agents, calls, num_refine, sigma_min, offset))
    print(table(2, 6, 4, 0.005, 0.0))
    print(table(6, 10, 4, 0.005, 0.0))
    print(table(6, 6, 3, 0.02, 0.0))


if __name__ == "__main__":
    main()
