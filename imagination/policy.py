"""The decentralised actors: one network shared by all agents, each fed with what it alone sees.

Which agent it plays, the network knows only from the agent's view (the id that environments append to observations).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from imagination.actor_input import ActorInput, ActorInputKind
from imagination.distributions import ActionDistribution, DiagonalGaussian, StretchedBeta
from worldmodel.config import Config
from worldmodel.networks import mlp, orthogonal_init
from worldmodel.types import EnvSpec

HEAD_GAIN = 0.01
"""Gain of the mean's layer: first actions are near 0 whatever is seen (the authors' published code)."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig(Config):
    """The actor's network and its distribution over actions."""

    hidden_dims: tuple[int, ...]
    """Width of each hidden layer."""
    activation: str
    """Of the hidden layers; a key of `worldmodel.networks.ACTIVATIONS`."""
    input_layer_norm: bool
    """LayerNorm on the view before the first layer."""
    head: Literal["gaussian", "beta"]
    """Distribution of an action dimension."""
    mean: Literal["linear", "tanh"]
    """Gaussian: an unbounded mean, or one squashed into (-1, 1)."""
    std: Literal["sigmoid", "free"]
    """Gaussian: `std_limit * sigmoid(rho)` or `exp(log_std)`; learned, one a dimension, the same in every state."""
    std_limit: float
    """`sigmoid`: the largest std."""
    std_logit_init: float
    """`sigmoid`: rho at the start."""
    log_std_init: float
    """`free`: log std at the start."""
    log_std_min: float
    """`free`: smallest log std."""
    log_std_max: float
    """`free`: largest log std."""
    input: ActorInputKind = "obs"
    """What the actors are fed with (with a default, so that older runs can be read)."""

    def validate(self) -> None:
        """Refuse empty networks and impossible spreads."""
        self.require(bool(self.hidden_dims) and min(self.hidden_dims) >= 1, "hidden_dims", "sizes of at least 1")
        self.require(self.std_limit > 0, "std_limit", "a number above 0")
        self.require(
            self.log_std_min <= self.log_std_init <= self.log_std_max,
            "log_std_init",
            f"a number in [log_std_min, log_std_max] = [{self.log_std_min}, {self.log_std_max}]",
        )

    def build(self, spec: EnvSpec, actor_dim: int) -> Policy:
        """A fresh policy for the agents of `spec`, of whom a model's view holds `actor_dim` numbers each."""
        return Policy(self, spec, actor_dim)


class Policy(nn.Module):
    """Shared actor: [..., N, F] -> a distribution over [..., N, A]; `input` makes what it is fed with.

    LayerNorm on the input, then (Linear, activation, LayerNorm) for each hidden layer, orthogonal with gain sqrt(2).
    An action dimension that an agent does not have is always 0 and has neither log-probability nor entropy.
    """

    action_mask: Tensor

    def __init__(self, config: PolicyConfig, spec: EnvSpec, actor_dim: int) -> None:
        """Fresh weights from torch's default generator."""
        super().__init__()
        self.input = ActorInput(config.input, spec, actor_dim)
        self.trunk = mlp(
            [self.input.dim, *config.hidden_dims], activation=config.activation, layer_norm=True, activate_last=True
        )
        if config.input_layer_norm:
            self.trunk.insert(0, nn.LayerNorm(self.input.dim))
        orthogonal_init(self.trunk)
        head = BetaHead if config.head == "beta" else GaussianHead
        self.head = head(config, config.hidden_dims[-1], spec.action_dim)
        self.register_buffer("action_mask", spec.action_mask(), persistent=False)

    def forward(self, actor_view: Tensor) -> ActionDistribution:
        """The distribution of each agent's actions [...,N,A], padded dimensions included."""
        return self.head(self.trunk(actor_view))

    def sample(self, actor_view: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the joint action for `actor_view` [...,N,F].

        Returns:
            The action [...,N,A] as drawn (a Gaussian one may leave [-1, 1]: see `to_env`), and its log-probability
            [...,N], summed over the agent's own dimensions.
        """
        distribution = self(actor_view)
        action = self._mask(distribution.sample(generator))
        return action, self._mask(distribution.log_prob(action)).sum(-1)

    def evaluate(self, actor_view: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of `action` [...,N,A] as drawn, and entropy, both [...,N], summed over own dimensions."""
        distribution = self(actor_view)
        log_prob = self._mask(distribution.log_prob(action)).sum(-1)
        return log_prob, self._mask(distribution.entropy()).sum(-1)

    def mode(self, actor_view: Tensor) -> Tensor:
        """The deterministic joint action [...,N,A] for `actor_view` [...,N,F]: the mean, for the Beta too."""
        return self._mask(self(actor_view).mean)

    def std(self, actor_view: Tensor) -> Tensor:
        """Mean standard deviation of the real action dimensions over all views [...,N,F]; a scalar."""
        return self._mask(self(actor_view).std).mean() / self.action_mask.float().mean()

    @staticmethod
    def to_env(action: Tensor) -> Tensor:
        """A drawn action as the environment, replay and world models take it: clamped to [-1, 1]."""
        return action.clamp(-1, 1)

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring parameters back into their allowed range after an optimiser step. Mutates the policy."""
        self.head.constrain()

    def _mask(self, values: Tensor) -> Tensor:
        return torch.where(self.action_mask, values, 0.0)


class GaussianHead(nn.Module):
    """Mean from the features; a learned std that no state changes (as MARIE, HARL and the authors' published code)."""

    def __init__(self, config: PolicyConfig, features: int, action_dim: int) -> None:
        """Mean near 0, std at its configured start."""
        super().__init__()
        self.config = config
        self.mean = nn.Linear(features, action_dim)
        orthogonal_init(self.mean, HEAD_GAIN)
        start = config.std_logit_init if config.std == "sigmoid" else config.log_std_init
        self.spread = nn.Parameter(torch.full((action_dim,), start))

    def forward(self, features: Tensor) -> DiagonalGaussian:
        """[...,features] -> a distribution over [...,A]."""
        mean = self.mean(features).float()
        if self.config.mean == "tanh":
            mean = torch.tanh(mean)
        bounded = self.config.std == "sigmoid"
        std = self.config.std_limit * torch.sigmoid(self.spread) if bounded else self.spread.exp()
        return DiagonalGaussian(mean, std.expand_as(mean))

    def constrain(self) -> None:
        """Project a free log std onto its range. A clamp in `forward` would cut the gradient that leads back in."""
        if self.config.std == "free":
            self.spread.clamp_(self.config.log_std_min, self.config.log_std_max)


class BetaHead(nn.Module):
    """alpha, beta = 1 + softplus(linear), zero-initialised: every state starts with Beta(1.69, 1.69), mean 0."""

    def __init__(self, config: PolicyConfig, features: int, action_dim: int) -> None:
        """Zero weights, whatever `config` says of the Gaussian."""
        super().__init__()
        self.shape = nn.Linear(features, 2 * action_dim)
        nn.init.zeros_(self.shape.weight)
        nn.init.zeros_(self.shape.bias)

    def forward(self, features: Tensor) -> StretchedBeta:
        """[...,features] -> a distribution over [...,A]."""
        alpha, beta = (1 + functional.softplus(self.shape(features).float())).chunk(2, dim=-1)
        return StretchedBeta(alpha, beta)

    def constrain(self) -> None:
        """Nothing to do: every weight is allowed."""
