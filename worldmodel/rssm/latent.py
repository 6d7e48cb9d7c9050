"""Discrete latents: groups of categorical variables, sampled with a straight-through gradient (DreamerV2).

Pure functions on logits and log-probabilities [*,G,C] of G groups with C classes each; all chance comes in as
uniform numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_probabilities(logits: Tensor, uniform_mix: float) -> Tensor:
    """Normalised log-probabilities [*,G,C] of `logits`, mixed with a share `uniform_mix` of the uniform law.

    The mixture is DreamerV3's (arXiv 2301.04104, 1 %); 0 leaves the plain softmax of DreamerV2 and MAMBA.
    """
    log_probs = logits.log_softmax(dim=-1)
    if uniform_mix == 0:
        return log_probs
    floor = math.log(uniform_mix / logits.shape[-1])
    return torch.logaddexp(log_probs + math.log1p(-uniform_mix), torch.full_like(log_probs, floor))


def sample_one_hot(logits: Tensor, uniform_mix: float, uniform: Tensor) -> Tensor:
    """One-hot draws [*,G,C] by the inverse distribution function, with the gradient of the probabilities.

    Straight-through as in DreamerV2 (arXiv 2010.02193, Algorithm 1): the value is exactly one-hot.

    Args:
        logits: [*,G,C].
        uniform_mix: share of the uniform law, as in `log_probabilities`.
        uniform: [*,G] uniform in [0, 1), one number a draw.
    """
    probs = logits.softmax(dim=-1)
    if uniform_mix > 0:
        probs = (1 - uniform_mix) * probs + uniform_mix / logits.shape[-1]
    with torch.no_grad():
        index = torch.searchsorted(probs.cumsum(dim=-1), uniform[..., None], right=True)
        # The last class takes what rounding leaves of the total.
        one_hot = torch.zeros_like(probs).scatter_(-1, index.clamp_(max=probs.shape[-1] - 1), 1.0)
    # The difference is exactly zero; added in another order, rounding would leave values near 0 and 1.
    return one_hot + (probs - probs.detach())


def kl_divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) [*] in nats, summed over the groups of `log_q` and `log_p` [*,G,C]."""
    return (log_q.exp() * (log_q - log_p)).sum(dim=(-2, -1))


def balanced_kl(log_posterior: Tensor, log_prior: Tensor, balance: float, free_nats: float) -> Tensor:
    """KL(posterior || prior) [*] whose gradient trains the prior more than the posterior.

    DreamerV2, Algorithm 2: `balance` * KL(stopped posterior || prior) + (1 - `balance`) * KL(posterior || stopped
    prior). Each KL counts at least `free_nats` and has no gradient below, state by state, as in DreamerV3.
    """
    to_prior = kl_divergence(log_posterior.detach(), log_prior).clamp(min=free_nats)
    to_posterior = kl_divergence(log_posterior, log_prior.detach()).clamp(min=free_nats)
    return balance * to_prior + (1 - balance) * to_posterior
