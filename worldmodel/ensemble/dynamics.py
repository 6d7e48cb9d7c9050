"""The ensemble's dynamics: how state and reward change under a joint action, and whether the episode ends.

PETS (Chua et al., arXiv 1805.12114, section 4 and appendix A.1) and MBPO (Janner et al., arXiv 1906.08253, appendix C).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.config import Config, OptimConfig
from worldmodel.ensemble.bootstrap import Bootstrap
from worldmodel.ensemble.members import Members
from worldmodel.losses import masked_mean
from worldmodel.normalize import RunningNormalizer
from worldmodel.protocol import TrainablePart
from worldmodel.types import EnvSpec, LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class DynamicsConfig(Config):
    """Shape and fitting of the ensemble."""

    num_members: int
    """E."""
    hidden_dims: tuple[int, ...]
    """Widths of each member's hidden layers."""
    bound_weight: float
    """Weight of the loss, summed over dimensions, that draws the learned bounds of the log variance together."""
    bootstrap: bool
    """Give each member its own resampling of the data: each transition counts for it a Poisson(1) number of times."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        self.require(self.num_members >= 2, "num_members", "at least 2: one network disagrees with nobody")
        self.require(min(self.hidden_dims, default=0) >= 1, "hidden_dims", "at least one layer of at least 1")
        self.require(self.bound_weight >= 0, "bound_weight", "a number of at least 0")


class Forecast(NamedTuple):
    """What every member expects, in standard deviations of what is predicted."""

    mean: Tensor
    """[E,B,S+1]: change of the state, reward."""
    log_variance: Tensor
    """[E,B,S+1]."""
    end_logit: Tensor
    """[E,B]: of termination."""


class Dynamics(TrainablePart):
    """(state, joint action) -> a Gaussian over (change of the state, reward) and an end, by each of E members."""

    segment_length = 1
    burn_in = 0

    def __init__(
        self,
        config: DynamicsConfig,
        spec: EnvSpec,
        state_norm: RunningNormalizer,
        change_norm: RunningNormalizer,
        reward_norm: RunningNormalizer,
    ) -> None:
        """Take running statistics of the state [S], of its changes [S] and of the reward [1] from the world model."""
        super().__init__()
        self.config = config
        self.optim = config.optim
        # In a tuple, so that they are not registered here: the world model owns, moves and saves the normalisers.
        self._norms = (state_norm, change_norm, reward_norm)
        self.target_dim = spec.state_dim + 1
        size_in = spec.state_dim + spec.num_agents * spec.action_dim
        self.members = Members(config.num_members, [size_in, *config.hidden_dims, 2 * self.target_dim + 1])
        self.bootstrap = Bootstrap(config.num_members, size_in) if config.bootstrap else None
        # As in the code of PETS: softly clamped between bounds that are learned, or a variance can grow without end
        # where there is no data.
        self.max_log_variance = nn.Parameter(torch.full((self.target_dim,), 0.5))
        self.min_log_variance = nn.Parameter(torch.full((self.target_dim,), -10.0))

    def forecast(self, z: Tensor, action: Tensor) -> Forecast:
        """Every member's forecast for normalised states z [B,S] and joint actions [B,N,A]."""
        out = self.members(torch.cat([z, action.flatten(1)], dim=1))
        mean, log_variance, end = out.split([self.target_dim, self.target_dim, 1], dim=-1)
        log_variance = self.max_log_variance - functional.softplus(self.max_log_variance - log_variance)
        log_variance = self.min_log_variance + functional.softplus(log_variance - self.min_log_variance)
        return Forecast(mean, log_variance, end[..., 0])

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Gaussian negative log-likelihood and the end's cross-entropy, on the one transition of `segment` [B,1].

        Metrics: `dynamics_likelihood` (nats a dimension, without the constant), `dynamics_error` (of the members' mean,
        squared, in standard deviations of what is predicted), `dynamics_end_loss` and `dynamics_disagreement`.
        """
        state_norm, change_norm, reward_norm = self._norms
        state, valid = segment.state, segment.valid[:, 0]
        z = state_norm.normalize(state[:, 0])
        change = change_norm.normalize(state[:, 1] - state[:, 0])
        target = torch.cat([change, reward_norm.normalize(segment.reward)], dim=1)  # [B, S+1]
        forecast = self.forecast(z, segment.action[:, 0])

        error = (forecast.mean - target).square()
        likelihood = (0.5 * (error * (-forecast.log_variance).exp() + forecast.log_variance)).mean(dim=2)  # [E, B]
        ended = segment.terminated[:, 0].to(z.dtype).expand_as(forecast.end_logit)
        end_loss = functional.binary_cross_entropy_with_logits(forecast.end_logit, ended, reduction="none")
        weight = self._counts(segment).to(z.dtype) if self.bootstrap else torch.ones_like(likelihood)
        counted = valid.expand_as(likelihood)
        # A mean over members, whose gradients do not meet: each learns as fast as one alone would under the sum.
        loss = self.config.num_members * masked_mean(weight * (likelihood + end_loss), counted)
        bounds = (self.max_log_variance - self.min_log_variance).sum()
        with torch.no_grad():
            mean = forecast.mean.mean(dim=0)
            metrics = {
                "dynamics_likelihood": masked_mean(likelihood, counted),
                "dynamics_error": masked_mean((mean - target).square().mean(dim=1), valid),
                "dynamics_end_loss": masked_mean(end_loss, counted),
                "dynamics_disagreement": masked_mean(disagreement(forecast), valid),
            }
        return LossOutput(loss + self.config.bound_weight * bounds, metrics)

    def _counts(self, segment: Segment) -> Tensor:
        """How often each transition counts for each member [E,B]."""
        assert self.bootstrap is not None
        return self.bootstrap(torch.cat([segment.state[:, 0], segment.action[:, 0].flatten(1)], dim=1))


def disagreement(forecast: Forecast) -> Tensor:
    """How far the members' means lie apart [B]: their standard deviation, root mean square over the state's dimensions.

    In standard deviations of one step's change: 1 means that they know nothing that the data's spread does not say.
    """
    change = forecast.mean[..., :-1]
    return change.var(dim=0, correction=0).mean(dim=1).sqrt()
