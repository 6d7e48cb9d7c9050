"""Rollouts of a policy inside any world model that keeps the contract, without gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from imagination.policy import Policy
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
    model: WorldModel[Any], policy: Policy, context: Segment, horizon: int, generator: torch.Generator
) -> ImaginedRollout:
    """Let `policy` act for H = `horizon` steps inside `model`, from the last states of `context` [B].

    The model is given actions clamped to [-1, 1]; the rollout keeps them as drawn. Rollouts are never reset: steps
    after a predicted end go on, and it is for the losses to weight them by `continuation`.
    """
    with evaluation_mode(model):
        model_state = model.start(context, generator=generator)
        views = [_view(model, policy, model_state)]
        actions, log_probs, predictions = [], [], []
        for _ in range(horizon):
            action, log_prob = policy.sample(views[-1].actor, generator)
            model_state, prediction = model.step(model_state, policy.to_env(action), generator=generator)
            views.append(_view(model, policy, model_state))
            actions.append(action)
            log_probs.append(log_prob)
            predictions.append(prediction)
    return ImaginedRollout(
        actor_view=torch.stack([view.actor for view in views], dim=1),
        critic_view=torch.stack([view.critic for view in views], dim=1),
        action=torch.stack(actions, dim=1),
        log_prob=torch.stack(log_probs, dim=1),
        reward=torch.stack([prediction.reward for prediction in predictions], dim=1),
        continuation=torch.stack([prediction.continuation for prediction in predictions], dim=1),
    )


def _view(model: WorldModel[Any], policy: Policy, model_state: Any) -> AgentView:
    """What the model shows, with the policy's own input in place of the actors' view."""
    view = model.view(model_state)
    return dataclasses.replace(view, actor=policy.input(view))
