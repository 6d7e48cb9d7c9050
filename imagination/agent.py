"""A policy acting in the real world: the model absorbs what is seen, the policy acts on the model's view of it.

A policy whose input is the global state acts on the true one, or on one that is inferred from the observations.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from imagination.belief import Belief
from imagination.policy import Policy
from imagination.rollout import evaluation_mode
from worldmodel.history import begin_history, extend_history, infer_for_agents
from worldmodel.protocol import WorldModel
from worldmodel.types import Segment, TensorStruct, Transition


@dataclasses.dataclass(frozen=True)
class PolicyCarry(TensorStruct):
    """What a `PolicyAgent` remembers of B environments between two steps."""

    model_state: TensorStruct
    """The model's carry after the last observation."""
    action: Tensor
    """[B,N,A] the action that was sent last; zeros before the first."""
    history: Tensor | None = None
    """[B,m+1,N,O] the last observations, where states are inferred from them."""


class PolicyAgent:
    """Keeps the `Agent` protocol with a policy and the world model it was trained in.

    Works on the policy's device whatever the device of the observations, and answers on theirs. Randomness comes
    from `generator`: the policy's sampling unless `deterministic`, and whatever the model draws when it observes.
    """

    def __init__(
        self,
        model: WorldModel[Any],
        policy: Policy,
        generator: torch.Generator,
        deterministic: bool,
        belief: Belief | None = None,
    ) -> None:
        """Share `model` and `policy` with whoever trains them: the agent always acts with their present weights.

        `belief`: how the state is inferred where the policy's input needs one; None: the true state is acted on.
        """
        self.model = model
        self.policy = policy
        self.generator = generator
        self.deterministic = deterministic
        self.belief = belief if policy.input.uses_state else None

    @torch.no_grad()
    def begin(self, obs: Tensor, state: Tensor) -> PolicyCarry:
        """The carry for B environments that have just been reset: `obs` [B,N,O], `state` [B,S]."""
        mask = self.policy.action_mask
        num_agents, action_dim = mask.shape
        obs, state = obs.to(mask.device), state.to(mask.device)
        context = Segment.from_first(obs, state, action_dim, self.model.context_length)
        with evaluation_mode(self.model):
            model_state = self.model.start(context, generator=self.generator)
        history = begin_history(obs, self.belief.inference.history_steps) if self.belief else None
        return PolicyCarry(model_state, obs.new_zeros(obs.shape[0], num_agents, action_dim), history)

    @torch.no_grad()
    def act(self, carry: PolicyCarry, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, PolicyCarry]:
        """Actions [B,N,A] in [-1, 1] for `obs` [B,N,O]; rows with `is_first` [B] forget what came before."""
        device = self.policy.action_mask.device
        first = is_first.to(device)
        led_here = carry.action.masked_fill(first[:, None, None], 0.0)
        seen = Transition(action=led_here, obs=obs.to(device), state=state.to(device), is_first=first)
        with evaluation_mode(self.model):
            model_state = self.model.observe(carry.model_state, seen, generator=self.generator)
            view = self.model.view(model_state).actor
        if self.belief is None or carry.history is None:
            history, action = None, self._choose(self.policy.input.assemble(view, state.to(device)))
        else:
            history = extend_history(carry.history, seen.obs, first)
            action = self.belief.choose(self._act_on_draws(self.belief, view, history, state.to(device)))
        action = self.policy.to_env(action)
        return action.to(obs.device), PolicyCarry(model_state, action, history)

    def _act_on_draws(self, belief: Belief, view: Tensor, history: Tensor, state: Tensor) -> Tensor:
        """One action for each of M inferred states: [M,B,N,A]."""
        drawn = infer_for_agents(
            belief.inference, history, state, num_samples=belief.num_samples, generator=self.generator
        )
        views = view.expand(belief.num_samples, *view.shape)
        return self._choose(self.policy.input.assemble(views, drawn))

    def _choose(self, actor_input: Tensor) -> Tensor:
        return (
            self.policy.mode(actor_input) if self.deterministic else self.policy.sample(actor_input, self.generator)[0]
        )
