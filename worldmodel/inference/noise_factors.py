"""How an error of the predicted noise travels down a reverse diffusion chain: the constant C1 of GlobeDiff's Lemma 1.

The chain of Eq. 24 turns an error e_k at step k into sum_k A_k e_k at its end. The paper prints A_k with the product
over the steps i > k (Eq. 26), which come before step k in the reverse chain; an error passes those after it, i < k.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import torch
from torch import Tensor

Constants = Literal["printed", "corrected", "exact", "correlated", "worst"]
"""Which bound of E|sum_k A_k e_k|^2, given E|e_k|^2 = mse_k with mean delta^2 over the K steps:

`printed`: C1 K delta^2 with C1 = max_k A_k^2 and the product as printed;
`corrected`: the same with the product over i < k; covers uncorrelated errors, however delta^2 is spread over steps;
`exact`: sum_k A_k^2 mse_k, what uncorrelated errors reach;
`correlated`: (sum_k A_k sqrt(mse_k))^2, what errors of one direction reach;
`worst`: K delta^2 sum_k A_k^2, over all correlations and all ways to spread delta^2 over steps.
"""


@dataclasses.dataclass(frozen=True)
class NoiseFactors:
    """The factors A_k of one schedule, k = 1..K."""

    printed: Tensor
    """[K] with the product over i = k+1..K, as in Eq. 26."""
    executed: Tensor
    """[K] with the product over i = 1..k-1, as the chain runs."""
    signal: float
    """abar_K, the share of the state's variance that is left at step K; 0 if the forward chain ends in pure noise."""

    @property
    def num_steps(self) -> int:
        """K."""
        return self.executed.shape[0]

    def c1(self, constants: Literal["printed", "corrected"] = "printed") -> float:
        """C1, with the product as printed or as the chain runs."""
        factors = self.printed if constants == "printed" else self.executed
        return float(factors.square().max())

    def bound(self, step_mse: Tensor | float, constants: Constants = "printed") -> float:
        """Bound of the mean square error at the chain's end, in units of the state's square.

        Args:
            step_mse: E|eps_theta - eps|^2, summed over dimensions: [K], or one number for all steps.
            constants: which bound, see `Constants`.

        Raises:
            ValueError: for unknown constants, negative errors or another number of steps.
        """
        mse = self.check(step_mse)
        total = float(mse.sum())  # K delta^2
        if constants == "exact":
            return float((self.executed.square() * mse).sum())
        if constants == "correlated":
            return float((self.executed * mse.sqrt()).sum().square())
        if constants == "worst":
            return total * float(self.executed.square().sum())
        if constants in ("printed", "corrected"):
            return total * self.c1(constants)
        raise ValueError(f"constants = {constants!r}: expected one of {', '.join(get_args(Constants))}")

    def check(self, step_mse: Tensor | float) -> Tensor:
        """`step_mse` as [K]; raises `ValueError` as `bound` does."""
        mse = torch.as_tensor(step_mse, dtype=torch.float64, device="cpu")
        mse = mse.expand(self.num_steps) if mse.ndim == 0 else mse
        if mse.shape != (self.num_steps,) or not bool((mse >= 0).all()):
            raise ValueError(f"step_mse = {mse.tolist()}: expected {self.num_steps} numbers of at least 0")
        return mse


def noise_factors(betas: Tensor) -> NoiseFactors:
    """A_k = (1 - a_k) / sqrt(a_k (1 - abar_k)) * prod 1 / sqrt(a_i), with a = 1 - `betas` [K], first step first.

    Raises:
        ValueError: unless every beta lies above 0 and below 1.
    """
    beta = betas.detach().double().cpu()
    if beta.ndim != 1 or beta.numel() == 0 or not bool(((beta > 0) & (beta < 1)).all()):
        raise ValueError(f"betas = {beta.tolist()}: expected a list of numbers above 0 and below 1")
    alpha = 1 - beta
    abar = alpha.cumprod(dim=0)
    single = beta / (alpha * (1 - abar)).sqrt()
    later = abar[-1] / abar  # prod over i > k of a_i
    earlier = abar / alpha  # prod over i < k
    return NoiseFactors(single / later.sqrt(), single / earlier.sqrt(), float(abar[-1]))


def noise_mse(predicted: Tensor, noise: Tensor) -> Tensor:
    """E|eps_theta - eps|^2 of every step, [K]: both [K,*,S]; summed over the state, mean over the rest.

    Its mean over steps is the paper's delta^2. Even a perfect prediction has some: what eps leaves open given s^k.
    """
    error = (predicted.double() - noise.double()).square().sum(dim=-1)
    return error.reshape(error.shape[0], -1).mean(dim=1)
