"""Rollouts of a policy inside any world model that keeps the contract, without gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from imagination.policy import Policy
from imagination.uncertainty import UncertaintyConfig, UncertaintyGauge, known_steps
from worldmodel.protocol import WorldModel
from worldmodel.types import AgentView, ImaginedRollout, Segment


@contextmanager
def evaluation_mode(model: WorldModel[Any]) -> Iterator[None]:
    """Switch `model` to evaluation (no dropout) and back to what it was."""
    was_training = model.training
    if was_training:
        model.train(False)
    try:
        yield
    finally:
        if was_training:
            model.train(True)


@torch.no_grad()
def imagine(
    model: WorldModel[Any],
    policy: Policy,
    context: Segment,
    horizon: int,
    generator: torch.Generator,
    uncertainty: UncertaintyConfig | None = None,
) -> ImaginedRollout:
    """Let `policy` act for H = `horizon` steps inside `model`, from the last states of `context` [B].

    The model is given actions clamped to [-1, 1]; the rollout keeps them as drawn. Rollouts are never reset: steps
    after a predicted end go on, and it is for the losses to weight them by `continuation`, and to leave out those that
    `uncertainty`, which fits the model (`require_fit`), finds unknown: nothing of what the model says there is kept.
    """
    gauge = UncertaintyGauge(uncertainty, context) if uncertainty is not None and uncertainty.is_on else None
    with evaluation_mode(model):
        model_state = model.start(context, generator=generator)
        views = [_view(model, policy, model_state)]
        actions, log_probs, predictions, doubts = [], [], [], []
        for _ in range(horizon):
            action, log_prob = policy.sample(views[-1].actor, generator)
            before, joint_action = model_state, policy.to_env(action)
            model_state, prediction = model.step(before, joint_action, generator=generator)
            if gauge is not None:
                doubts.append(gauge.measure(model, before, joint_action, prediction, generator))
            views.append(_view(model, policy, model_state))
            actions.append(action)
            log_probs.append(log_prob)
            predictions.append(prediction)
    rollout = ImaginedRollout(
        actor_view=torch.stack([view.actor for view in views], dim=1),
        critic_view=torch.stack([view.critic for view in views], dim=1),
        action=torch.stack(actions, dim=1),
        log_prob=torch.stack(log_probs, dim=1),
        reward=torch.stack([prediction.reward for prediction in predictions], dim=1),
        continuation=torch.stack([prediction.continuation for prediction in predictions], dim=1),
    )
    return rollout if uncertainty is None or gauge is None else _doubted(rollout, torch.stack(doubts, 1), uncertainty)


def _doubted(rollout: ImaginedRollout, doubt: Tensor, config: UncertaintyConfig) -> ImaginedRollout:
    """The rollout with its uncertainty [B,H], and what is to be done about it."""
    if config.action == "penalise":
        penalty = config.weight * doubt
        return dataclasses.replace(rollout, uncertainty=doubt, penalty=penalty, reward=rollout.reward - penalty)
    known = known_steps(doubt, config.threshold)
    return _cut(dataclasses.replace(rollout, uncertainty=doubt), known)


def _cut(rollout: ImaginedRollout, known: Tensor) -> ImaginedRollout:
    """The rollout with nothing beyond its `known` steps [B,H], where the model may have diverged to a NaN.

    The view that the first unknown step starts from is the last one kept: its value stands for all that is cut off.
    """
    batch, horizon = known.shape
    steps = torch.arange(horizon + 1, device=known.device).minimum(known.sum(dim=1, keepdim=True))  # [B, H+1]
    rows = torch.arange(batch, device=known.device)[:, None]
    return dataclasses.replace(
        rollout,
        actor_view=rollout.actor_view[rows, steps],
        critic_view=rollout.critic_view[rows, steps],
        action=_where(known, rollout.action, 0.0),
        log_prob=_where(known, rollout.log_prob, 0.0),
        reward=_where(known, rollout.reward, 0.0),
        continuation=_where(known, rollout.continuation, 1.0),
        uncertainty=None if rollout.uncertainty is None else _where(known, rollout.uncertainty, 0.0),
        known=known,
    )


def _where(known: Tensor, values: Tensor, otherwise: float) -> Tensor:
    """`values` [B,H,..] where `known` [B,H]."""
    return torch.where(known.reshape(known.shape + (1,) * (values.ndim - 2)), values, otherwise)


def _view(model: WorldModel[Any], policy: Policy, model_state: Any) -> AgentView:
    """What the model shows, with the policy's own input in place of the actors' view."""
    view = model.view(model_state)
    return dataclasses.replace(view, actor=policy.input(view))
