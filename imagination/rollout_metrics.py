"""What is worth logging of an imagined rollout, of those steps alone that are known."""

from __future__ import annotations

from torch import Tensor

from worldmodel.losses import masked_mean
from worldmodel.types import ImaginedRollout


def describe_rollout(rollout: ImaginedRollout, value: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Scalars by name, from a rollout, the values [B,H+1] of its views, and its returns [B,H].

    The reward is the model's own: a penalty for uncertainty, which returns hold, is told apart from it.
    """
    known, penalty = rollout.known, rollout.penalty
    unexplained = _var(target - value[:, :-1], known) / _var(target, known).clamp(min=1e-8)
    metrics = {
        "imagination/reward_mean": mean_of_known(
            rollout.reward if penalty is None else rollout.reward + penalty, known
        ),
        "imagination/return_mean": mean_of_known(target, known),
        "imagination/continuation_mean": mean_of_known(rollout.continuation, known),
        "critic/value_mean": mean_of_known(value if known is None else value[:, :-1], known),
        "critic/explained_variance": 1 - unexplained,
    }
    if penalty is not None:
        metrics["imagination/penalty_mean"] = mean_of_known(penalty, known)
    if rollout.uncertainty is not None:
        metrics["imagination/uncertainty_mean"] = mean_of_known(rollout.uncertainty, known)
    if known is not None:
        metrics["imagination/known_share"] = known.float().mean()
    return metrics


def mean_of_known(values: Tensor, known: Tensor | None) -> Tensor:
    """Mean of `values` [*,..] over all steps [*] that are `known`; 0 where that is none."""
    if known is None:
        return values.mean()
    return masked_mean(values, known.reshape(known.shape + (1,) * (values.ndim - known.ndim)).expand_as(values))


def _var(values: Tensor, known: Tensor | None) -> Tensor:
    """Population variance of `values` [*] over all that are `known`; 0 where that is none."""
    if known is None:
        return values.var(correction=0)
    return mean_of_known((values - mean_of_known(values, known)).square(), known)
