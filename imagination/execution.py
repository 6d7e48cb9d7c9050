"""The whole path from observations to actions as one module without memory or chance of its own: it can be exported.

Histories and unit noise go in, clamped actions come out. Gives what `PolicyAgent` does for the same noise; knows no
world model beyond a module that turns observations into the actors' view.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from imagination.belief import Belief
from imagination.distributions import DiagonalGaussian
from imagination.policy import Policy
from worldmodel.config import ConfigError


@dataclasses.dataclass(frozen=True)
class NoiseSizes:
    """How many unit normals a decision takes: those of all states that it infers, then its actions'."""

    inference: int
    action: int

    @property
    def total(self) -> int:
        """Length of one row of noise."""
        return self.inference + self.action


class ExecutionPath(nn.Module):
    """Observations to actions [B,N,A] in [-1, 1], with a policy that is fed with observations or inferred states.

    Args:
        policy: who acts.
        view: a module from observations [B,N,O] to the actors' view [B,N,F].
        belief: how states are inferred where the policy needs them, by a `LearnedInference`; else None.
        deterministic: the distribution's mean as the action, or a draw.
        agent: the one agent that decides, from what it alone observes; None: all of them.

    Raises:
        ConfigError: when a state is needed and nothing infers it, or there is no such agent.
    """

    inference: Any
    """A `LearnedInference`, or None."""

    def __init__(
        self, policy: Policy, view: nn.Module, belief: Belief | None, deterministic: bool, agent: int | None = None
    ) -> None:
        super().__init__()
        if policy.input.uses_state != (belief is not None):
            raise ConfigError(f"policy.policy.input = {policy.input.kind!r} and belief = {belief}: they do not fit")
        inference: Any = None if belief is None else belief.inference
        if inference is not None and not isinstance(inference, nn.Module):
            raise ConfigError(f"{type(inference).__name__} learned nothing that could be exported")
        self.policy = policy
        self.view = view
        self.inference = inference
        self.deterministic = deterministic
        self._belief = belief
        num_agents, action_dim = policy.action_mask.shape
        if agent is not None and not 0 <= agent < num_agents:
            raise ConfigError(f"agent = {agent}: expected a number from 0 to {num_agents - 1}")
        self.num_agents = num_agents
        self.agent = agent
        self._deciding = list(range(num_agents)) if agent is None else [agent]
        self.num_samples = 1 if belief is None else belief.num_samples
        draws = self.num_samples * len(self._deciding)
        per_draw = 0 if inference is None else self.inference.law.draw_noise(1, torch.Generator()).shape[1]
        self.noise = NoiseSizes(draws * per_draw, 0 if deterministic else draws * action_dim)
        self.history_steps: int = 0 if inference is None else self.inference.history_steps

    def forward(self, history: Tensor, noise: Tensor | None = None) -> Tensor:
        """The joint action [B,N,A]; where one agent decides, its own [B,A].

        Args:
            history: [B,m+1,N,O] observations, the present one last; where one agent decides, its own [B,m+1,O].
            noise: [B,`noise.total`] unit normals; None where that is 0.
        """
        if self.agent is None:
            return self._decide(history, noise)
        # The other agents' places hold something finite: what comes of them is not looked at.
        everywhere = history[:, :, None].expand(-1, -1, self.num_agents, -1)
        return self._decide(everywhere, noise)[:, self.agent]

    def _decide(self, history: Tensor, noise: Tensor | None) -> Tensor:
        view = self.view(history[:, -1])
        parts = None if noise is None else noise.split([self.noise.inference, self.noise.action], dim=1)
        if self._belief is None:
            return self.policy.to_env(self._act(self.policy.input.assemble(view, None), parts, 1)[0])
        states = self._infer(history, None if parts is None else parts[0])
        views = view.expand(self.num_samples, *view.shape)
        actions = self._act(self.policy.input.assemble(views, states), parts, self.num_samples)
        return self.policy.to_env(self._belief.choose(actions))

    def _infer(self, history: Tensor, noise: Tensor | None) -> Tensor:
        """The states [M,B,N,S] that agents infer, each for itself; that of the one who decides stands for all."""
        batch, agents, samples = history.shape[0], len(self._deciding), self.num_samples
        rows = history[:, None].expand(-1, agents, -1, -1, -1).flatten(0, 1)  # [B*N,m+1,N,O]
        agent = torch.tensor(self._deciding, device=history.device)[None].expand(batch, -1).flatten()
        x = self.inference.observation(rows, agent).repeat(samples, 1)  # [M*B*N,X]
        own = x.new_zeros(x.shape[0], 0) if noise is None else _by_draw(noise, samples, agents).flatten(0, 2)
        states = self.inference.state_norm.denormalize(self.inference.law.sample(x, own))
        return states.reshape(samples, batch, agents, -1).expand(-1, -1, self.num_agents, -1)

    def _act(self, actor_input: Tensor, parts: tuple[Tensor, ...] | None, samples: int) -> Tensor:
        """Actions [M,B,N,A]; without a belief the input has no axis of draws, and M is 1."""
        if self.deterministic:
            action = self.policy.mode(actor_input)
            return action if action.ndim == 4 else action[None]
        distribution = self.policy(actor_input)
        if not isinstance(distribution, DiagonalGaussian) or parts is None:
            raise ConfigError("a draw of a Beta policy takes more than normal noise; use deterministic=true")
        drawn = distribution.mean + distribution.std * _by_draw(parts[1], samples, len(self._deciding))
        return torch.where(self.policy.action_mask, drawn, 0.0)


def _by_draw(noise: Tensor, samples: int, agents: int) -> Tensor:
    """[B,M*N*D] -> [M,B,N,D]."""
    return noise.unflatten(1, (samples, agents, -1)).movedim(1, 0)
