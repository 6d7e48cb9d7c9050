"""What imagined rewards are worth: lambda-returns, and how likely an imagined step is to be reached at all.

Pure functions of tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(
    reward: Tensor,
    continuation: Tensor,
    next_value: Tensor,
    *,
    discount: float,
    lambda_: float,
    known: Tensor | None = None,
) -> Tensor:
    """The lambda-return of each of H imagined steps, from expected rather than sampled ends.

    G_t = r_t + discount * c_t * ((1 - lambda) * V_{t+1} + lambda * G_{t+1}), with G_H = V_H beyond the horizon.
    Eq. 19 of the paper's appendix C, read as in Dreamer: with the value of the *next* state, `discount` applied once
    (the authors' published code multiplies the V term by it twice), and H targets for H steps.

    Args:
        reward: [B,H] per env step.
        continuation: [B,H] in [0, 1], probability that the episode does not terminate at this step.
        next_value: [B,H] critic's value of the state after each step, in units of reward.
        discount: per step, in [0, 1].
        lambda_: in [0, 1]; 0 trusts the critic after one step, 1 only beyond the horizon.
        known: [B,H] bool, the steps of each rollout before it was cut: beyond them the critic's value stands, as it
            does beyond the horizon. None: all.

    Returns:
        [B,H]; of no meaning where a step is not known.
    """
    weight = discount * continuation
    one_step = reward + weight * (1 - lambda_) * next_value
    later = next_value[:, -1]
    returns: list[Tensor] = []
    for t in reversed(range(reward.shape[1])):
        returns.append(one_step[:, t] + weight[:, t] * lambda_ * later)
        later = returns[-1]
        if known is not None and t > 0:
            # A step that was cut off is worth what the critic says of the state it starts from.
            later = torch.where(known[:, t], later, next_value[:, t - 1])
    return torch.stack(returns[::-1], dim=1)


def survival_weights(continuation: Tensor) -> Tensor:
    """Probability that the episode has not terminated before each step: w_t = prod_{u<t} continuation_u; [B,H]."""
    before = torch.cat([torch.ones_like(continuation[:, :1]), continuation[:, :-1]], dim=1)
    return torch.cumprod(before, dim=1)
