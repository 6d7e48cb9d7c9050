"""GlobeDiff's Theorem 1, Lemma 1 and Theorem 2 as checks: both sides in numbers, and whether the conditions hold.

Each check returns an `Inequality`. Where the paper's proof loses a factor or a condition, the docstring says so, and
`terms` holds the repaired numbers beside the printed ones. The conditions on the noise error and on the KL divergence
only name delta^2 and eps_KL; measured values meet them by themselves.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from worldmodel.inference.gaussian_mixture import GaussianMixture, gaussian_w2_squared, sample_moments
from worldmodel.inference.inequality import Condition, Inequality
from worldmodel.inference.noise_factors import Constants, noise_factors

SIGNAL_LIMIT = 0.01
"""Largest abar_K that passes for "ends in pure noise"; a guess: the cosine schedule has 1e-4, VP 6e-3."""


def theorem_1_gaussians(
    mean: Tensor, covariance: Tensor, true_mean: Tensor, true_covariance: Tensor, cross: Tensor | None = None
) -> Inequality:
    """Theorem 1 between a Gaussian model and a Gaussian truth, in closed form.

    Args:
        mean: [S], `covariance` [S,S] of the generated state.
        true_mean: [S], `true_covariance` [S,S] of the state.
        cross: [S,S] E[(s_hat - mean)(s - true_mean)^T] of draws that depend on each other; None: independent draws,
            which the paper does not ask for but needs.
    """
    between = gaussian_w2_squared(mean, covariance, true_mean, true_covariance)
    variance = float(true_covariance.double().trace())
    left = float((mean.double() - true_mean.double()).square().sum() + covariance.double().trace()) + variance
    if cross is not None:
        left -= 2 * float(cross.double().trace())
    independent = cross is None or not bool(cross.any())
    return _theorem_1(left, float(between), variance, independent, left_error=0.0)


def theorem_1_samples(samples: Tensor, law: GaussianMixture, w2_squared: float | None = None) -> Inequality:
    """Theorem 1 for a model's `samples` [M,*,S] and states drawn independently of them from `law`.

    Exact in the state: E|s_hat - s|^2 = E|s_hat - E[s|x]|^2 + Var(s|x). Both sides are means over "*".

    Args:
        samples: M at least 2.
        law: p(s|x), means [J,*,S].
        w2_squared: W2^2 of the two laws, where known. None: the distance of Gaussians with the moments of `samples`
            and `law`, which is at most W2^2, so that what holds here holds; with few samples their scatter adds to it.
    """
    true_mean, true_covariance = law.moments()
    if w2_squared is None:
        between = gaussian_w2_squared(*sample_moments(samples), true_mean, true_covariance)
        w2_squared = float(between.mean())
    variance = float(true_covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).mean())
    error = (samples.double() - true_mean).square().sum(dim=-1)
    return _theorem_1(float(error.mean()) + variance, w2_squared, variance, True, _standard_error(error))


def _theorem_1(left: float, w2_squared: float, variance: float, independent: bool, left_error: float) -> Inequality:
    """Eq. 18 squares a triangle inequality without its cross term, which independent draws make good for."""
    repaired = (math.sqrt(w2_squared) + math.sqrt(variance)) ** 2 + variance
    return Inequality(
        name="Theorem 1",
        left_text="E|s_hat - s|^2",
        left=left,
        right_text="2 W2^2 + 4 Var(s|x)",
        right=2 * w2_squared + 4 * variance,
        conditions=(Condition("s_hat and s are drawn independently (not printed)", independent),),
        terms={"W2^2": w2_squared, "Var(s|x)": variance, "(W2 + sqrt Var)^2 + Var": repaired},
        left_error=left_error,
    )


def lemma_1(
    w2_squared: float,
    betas: Tensor,
    step_mse: Tensor | float,
    *,
    epsilon_kl: float = 0.0,
    c2: float = 0.0,
    constants: Constants = "printed",
) -> Inequality:
    """Lemma 1: W2^2 <= C1 K delta^2 + C2 eps_KL.

    The proof ignores that the sampler starts from N(0, I) while the forward chain ends with abar_K of the state left,
    the noise that Eq. 11 adds even at the last step, and errors that depend on each other over steps. Its triangle step
    (Eq. 36) doubles both terms, which the paper absorbs into the constants; `latent_constant` has its 2, C1 has not.

    Args:
        w2_squared: of the model's law and the true one.
        betas: [K], first step first.
        step_mse: E|eps_theta - eps|^2 of every step [K], see `noise_mse`, or one number for all.
        epsilon_kl: KL(p_phi(z|x) || p(z|x)) in nats.
        c2: see `latent_constant`.
        constants: which bound stands on the right for C1 K delta^2.

    Raises:
        ValueError: when betas or errors make no sense.
    """
    factors = noise_factors(betas)
    mse = factors.check(step_mse)
    bounds = {name: factors.bound(mse, name) for name in _ALL_CONSTANTS}
    return Inequality(
        name="Lemma 1",
        left_text="W2^2",
        left=w2_squared,
        right_text=f"C1 K delta^2 ({constants}) + C2 eps_KL",
        right=bounds[constants] + c2 * epsilon_kl,
        conditions=(
            _covers("uncorrelated errors", bounds["printed"], bounds["exact"]),
            _covers("fully correlated errors", bounds["printed"], bounds["correlated"]),
            Condition(
                f"the forward chain ends in pure noise: abar_K = {factors.signal:.2g} <= {SIGNAL_LIMIT}",
                factors.signal <= SIGNAL_LIMIT,
            ),
        ),
        terms={
            "delta^2": float(mse.mean()),
            "C1 printed": factors.c1("printed"),
            "C1 corrected": factors.c1("corrected"),
            "C2 eps_KL": c2 * epsilon_kl,
            **{f"C1 K delta^2 {name}": value for name, value in bounds.items()},
        },
    )


_ALL_CONSTANTS: tuple[Constants, ...] = ("printed", "corrected", "exact", "correlated", "worst")


def _covers(what: str, printed: float, reached: float) -> Condition:
    return Condition(f"C1 K delta^2 as printed = {printed:.4g} covers {what} = {reached:.4g}", printed >= reached)


def theorem_2(
    samples: Tensor,
    law: GaussianMixture,
    *,
    noise_term: float,
    latent_term: float = 0.0,
    constants: Literal["printed", "proof", "coupling"] = "printed",
) -> Inequality:
    """Theorem 2: E min_j |s_hat - mu_j|^2 <= E + 2 max Tr Sigma_j, where E = C1 K delta^2 + C2 eps_KL.

    The nearest mode is what the proof bounds, whatever "there exists a mode" says. Its O(exp(-D^2 / (8 max Tr))) has
    no stated factor: the exponential is among the terms, not in the sum.

    Args:
        samples: [M,*,S] of the model.
        law: p(s|x), means [J,*,S].
        noise_term: C1 K delta^2, see `NoiseFactors.bound`; or W2^2 itself, to test what the proof makes of it.
        latent_term: C2 eps_KL.
        constants: "printed"; "proof": 2 J E + 2 max Tr, before factors are absorbed (Eq. 51); "coupling":
            2 E + 2 sum_j w_j Tr Sigma_j, which follows from W2^2 <= E alone, without regions or conditions, since
            min_j |s_hat - mu_j| <= |s_hat - s| + min_j |s - mu_j|.
    """
    error = law.nearest_mode_error(samples)
    model, traces = noise_term + latent_term, law.traces()
    largest, mean_trace = float(traces.max()), float(law.weight @ traces)
    rights = {
        "printed": (model + 2 * largest, "E + 2 max Tr"),
        "proof": (2 * law.num_modes * model + 2 * largest, "2 J E + 2 max Tr"),
        "coupling": (2 * model + 2 * mean_trace, "2 E + 2 sum w Tr"),
    }
    right, right_text = rights[constants]
    return Inequality(
        name="Theorem 2",
        left_text="E min_j |s_hat - mu_j|^2",
        left=float(error.mean()),
        right_text=right_text,
        right=right,
        conditions=_separation_conditions(law, noise_term, latent_term),
        terms={
            "E = C1 K delta^2 + C2 eps_KL": model,
            "sum w Tr (a perfect model's left side, modes far apart)": mean_trace,
            "sigma_max^2 = max Tr": largest,
            "exp(-D^2 / (8 sigma_max^2))": math.exp(-(law.separation() ** 2) / (8 * largest)),
            **{text: value for value, text in rights.values()},
        },
        left_error=_standard_error(error),
    )


def _separation_conditions(law: GaussianMixture, noise_term: float, latent_term: float) -> tuple[Condition, ...]:
    """Conditions 1 and 2; both compare a length with a square length, so they depend on the state's unit."""
    distance, largest = law.separation(), float(law.traces().max())
    least = 2 * math.sqrt(law.state_dim)
    main = 4 * math.sqrt(noise_term + latent_term) + largest
    appendix = 4 * math.sqrt(noise_term) + latent_term + largest
    return (
        Condition(f"D = {distance:.4g} >= 2 sqrt(S) = {least:.4g}", distance >= least),
        Condition(f"D = {distance:.4g} > 4 sqrt(E) + max Tr = {main:.4g} (main text)", distance > main),
        Condition(
            f"D = {distance:.4g} > 4 sqrt(C1 K delta^2) + C2 eps_KL + max Tr = {appendix:.4g} (appendix)",
            distance > appendix,
        ),
    )


def _standard_error(draws: Tensor) -> float:
    """Of the mean over all of `draws`, taken as independent."""
    return float(draws.std() / math.sqrt(draws.numel())) if draws.numel() > 1 else 0.0
