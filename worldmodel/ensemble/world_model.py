"""The ensemble as a `WorldModel`: what every costlier model has to beat.

A row of a rollout follows one member's Gaussian; a plain MLP decodes observations from the state. The members'
disagreement is reported as the model's uncertainty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from worldmodel.config import Config
from worldmodel.ensemble.dynamics import Dynamics, DynamicsConfig, Forecast, disagreement
from worldmodel.ensemble.observations import ObservationsConfig, ObservationsDecoder
from worldmodel.normalize import CHANGE_FLOOR, RunningNormalizer, absorb
from worldmodel.observation_layout import NormalizedObs
from worldmodel.protocol import TrainablePart
from worldmodel.shapes import check_shape
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class EnsembleConfig(Config):
    """Every option of the ensemble."""

    propagation: Literal["ts1", "ts_inf", "mean"]
    """Whose Gaussian a row follows: a member drawn anew at each step (PETS: TS1; MBPO), one for the whole rollout
    (PETS: TS-infinity), or nobody's: the mean over members, without noise."""
    state_std_floor: float
    """Smallest standard deviation to normalise by, in the environment's units."""
    state_clip: float
    """Bound on a sampled state, in standard deviations."""
    normalize_obs: bool
    """Show actors observations normalised by running statistics."""
    dynamics: DynamicsConfig
    """The members."""
    observations: ObservationsConfig
    """Global state to local observations."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.state_std_floor > 0, "state_std_floor", "a number above 0")
        self.require(self.state_clip > 0, "state_clip", "a number above 0")

    def build(self, spec: EnvSpec) -> EnsembleWorldModel:
        """The model for an environment, its weights drawn from torch's default generator."""
        return EnsembleWorldModel(self, spec)


@dataclasses.dataclass(frozen=True)
class EnsembleState(TensorStruct):
    """What a rollout carries."""

    z: Tensor
    """[B,S] the state, mean 0 and std 1."""
    obs: Tensor
    """[B,N,O] local observations, in the environment's units."""
    member: Tensor
    """[B] the member that each row follows under `ts_inf`."""


class EnsembleWorldModel(nn.Module):
    """Keeps `WorldModel`. Decentralised: an actor sees its own observation only."""

    context_length = 0
    decentralized = True
    reports_uncertainty = True

    def __init__(self, config: EnsembleConfig, spec: EnvSpec) -> None:
        """Build all parts for the sizes of `spec`."""
        super().__init__()
        self.config = config
        self.spec = spec
        self.actor_dim, self.critic_dim = spec.obs_dim, spec.state_dim
        floor = config.state_std_floor
        self.state_norm = RunningNormalizer(spec.state_dim, std_floor=floor)
        self.change_norm = RunningNormalizer(spec.state_dim, std_floor=floor * CHANGE_FLOOR)
        self.obs_norm = RunningNormalizer(spec.num_agents * spec.obs_dim, std_floor=floor)
        self.reward_norm = RunningNormalizer(1, std_floor=floor)
        self.dynamics = Dynamics(config.dynamics, spec, self.state_norm, self.change_norm, self.reward_norm)
        self.observations = ObservationsDecoder(config.observations, spec, self.state_norm, self.obs_norm)

    def parts(self) -> Mapping[str, TrainablePart]:
        """The ensemble, then the decoder."""
        return {"dynamics": self.dynamics, "observations": self.observations}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's states, their changes, observations and rewards into the running statistics."""
        absorb(trajectory, state=self.state_norm, change=self.change_norm, obs=self.obs_norm, reward=self.reward_norm)

    @torch.no_grad()
    def start(self, context: Segment, *, generator: torch.Generator) -> EnsembleState:
        """The carry for B rollouts from the last state of `context`.

        Raises:
            ValueError: when the context's shapes do not fit the environment.
        """
        spec = self.spec
        check_shape("context.state", context.state, "B K+1 S", S=spec.state_dim)
        check_shape("context.obs", context.obs, "B K+1 N O", N=spec.num_agents, O=spec.obs_dim)
        z = self.state_norm.normalize(context.state[:, -1])
        return EnsembleState(z, context.obs[:, -1], self._draw_member(z, generator))

    @torch.no_grad()
    def step(
        self, state: EnsembleState, action: Tensor, *, generator: torch.Generator
    ) -> tuple[EnsembleState, Prediction]:
        """One imagined transition by the member that `propagation` says."""
        forecast = self.dynamics.forecast(state.z, action)
        sampled, end_logit = self._sample(forecast, state.member, generator)
        change = self.change_norm.denormalize(sampled[:, :-1])
        bound = self.config.state_clip
        now = self.state_norm.denormalize(state.z)
        z = self.state_norm.normalize(now + change).clamp(-bound, bound)
        obs = self.observations.decode(z)
        reward = self.reward_norm.denormalize(sampled[:, -1:])[:, 0]
        prediction = Prediction(
            obs, self.state_norm.denormalize(z), reward, (-end_logit).sigmoid(), uncertainty=disagreement(forecast)
        )
        return EnsembleState(z, obs, state.member), prediction

    @torch.no_grad()
    def observe(self, state: EnsembleState, transition: Transition, *, generator: torch.Generator) -> EnsembleState:
        """Absorb one real step: what is seen replaces what was carried; without the global state the old one stays."""
        z = state.z * ~transition.is_first[:, None]
        if transition.state is not None:
            z = self.state_norm.normalize(transition.state)
        member = torch.where(transition.is_first, self._draw_member(z, generator), state.member)
        return EnsembleState(z, transition.obs, member)

    def view(self, state: EnsembleState) -> AgentView:
        """Actors see their own observation, the critic the global state."""
        obs = self.observations.layout.normalize(state.obs) if self.config.normalize_obs else state.obs
        return AgentView(actor=obs, critic=state.z, state=self.state_norm.denormalize(state.z))

    @property
    def actor_view(self) -> nn.Module:
        """A fresh module [B,N,O] -> [B,N,F]: what actors see of present observations, for `dima export`."""
        return NormalizedObs(self.observations.layout, self.obs_norm) if self.config.normalize_obs else nn.Identity()

    @torch.no_grad()
    def decode_states(self, state: Tensor) -> Tensor:
        """Observations [B,N,O] for global states [B,S], both in the environment's units; learns nothing."""
        return self.observations.decode(self.state_norm.normalize(state))

    def _draw_member(self, z: Tensor, generator: torch.Generator) -> Tensor:
        num_members = self.config.dynamics.num_members
        return torch.randint(num_members, (z.shape[0],), generator=generator, device=z.device)

    def _sample(self, forecast: Forecast, member: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(normalised change and reward [B,S+1], logit of the end [B])."""
        if self.config.propagation == "mean":
            return forecast.mean.mean(dim=0), forecast.end_logit.mean(dim=0)
        if self.config.propagation == "ts1":
            member = self._draw_member(forecast.mean[0], generator)
        row = torch.arange(member.shape[0], device=member.device)
        mean, log_variance = forecast.mean[member, row], forecast.log_variance[member, row]
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + (0.5 * log_variance).exp() * noise, forecast.end_logit[member, row]
