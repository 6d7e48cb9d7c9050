"""A recurrent state-space model for each agent, assembled into the `WorldModel` contract.

MAMBA's idea: "Scalable Multi-Agent Model-Based Reinforcement Learning" (Egorov and Shpilman, AAMAS 2022, arXiv
2205.15023), DreamerV2 (arXiv 2010.02193) with weights shared by all agents and attention between them. Policies act on
the latents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worldmodel.config import Config
from worldmodel.protocol import TrainablePart
from worldmodel.rssm.dynamics import Dynamics, DynamicsConfig
from worldmodel.rssm.heads import join
from worldmodel.rssm.units import Units
from worldmodel.shapes import check_shape
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class RssmConfig(Config):
    """Every option of the recurrent state-space model."""

    communication: bool
    """Whether agents attend to each other in every step, in the real world as well (MAMBA). False: each agent's latent
    follows from its own observations and actions alone, so that execution is decentralised."""
    context_length: int
    """K: real transitions that are filtered before imagination starts."""
    state_std_floor: float
    """Smallest standard deviation to normalise states, observations and rewards by, in the environment's units."""
    freeze_normalizers_after: int | None
    """Env steps after which the running statistics stay as they are; null: never."""
    dynamics: DynamicsConfig
    """The networks and how they are fitted."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.context_length >= 0, "context_length", "at least 0")
        self.require(self.state_std_floor > 0, "state_std_floor", "a number above 0")

    def build(self, spec: EnvSpec) -> RssmWorldModel:
        """The model for an environment, its weights drawn from torch's default generator."""
        return RssmWorldModel(self, spec)


@dataclasses.dataclass(frozen=True)
class RssmState(TensorStruct):
    """What a rollout carries."""

    deter: Tensor
    """[B,N,D] deterministic states."""
    latent: Tensor
    """[B,N,Z] latents, groups of one-hot vectors side by side."""
    state: Tensor
    """[B,S] the global state that they stand for, normalised."""


class RssmWorldModel(nn.Module):
    """The `WorldModel` on latents. Actors see their own [h, z]; the critic all of them and the decoded global state.

    Decentralised only without communication: with it, an agent's latent has heard what the others saw and did.
    """

    def __init__(self, config: RssmConfig, spec: EnvSpec) -> None:
        """Build all networks for the sizes of `spec`."""
        super().__init__()
        self.config = config
        self.spec = spec
        self.context_length = config.context_length
        self.decentralized = not config.communication
        self.actor_dim = config.dynamics.cell.feature_dim
        self.critic_dim = spec.num_agents * self.actor_dim + spec.state_dim
        self.units = Units(spec, config.state_std_floor, config.freeze_normalizers_after)
        self.dynamics = Dynamics(config.dynamics, spec, self.units, communication=config.communication)

    def parts(self) -> Mapping[str, TrainablePart]:
        """One part: everything is fitted together."""
        return {"dynamics": self.dynamics}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's states, observations and rewards into the running statistics."""
        self.units.update(trajectory)

    @torch.no_grad()
    def start(self, context: Segment, *, generator: torch.Generator) -> RssmState:
        """The carry for B rollouts: the posterior after the real transitions of `context` (K of them).

        Raises:
            ValueError: when the context's shapes do not fit the environment.
        """
        spec = self.spec
        sizes = {"N": spec.num_agents, "A": spec.action_dim, "O": spec.obs_dim}
        check_shape("context.action", context.action, "B K N A", K=self.context_length, **sizes)
        check_shape("context.obs", context.obs, "B K+1 N O", K=self.context_length, **sizes)
        filtered = self.dynamics.filter(context.obs, context.action, context.valid, generator)
        return self._carry(filtered.deter[:, -1], filtered.latent[:, -1])

    @torch.no_grad()
    def step(self, state: RssmState, action: Tensor, *, generator: torch.Generator) -> tuple[RssmState, Prediction]:
        """One imagined transition: the deterministic states move on, and the latents are drawn from the prior."""
        dynamics, heads, layout = self.dynamics, self.dynamics.heads, self.units.layout
        deter = dynamics.cell.transition(state.deter, state.latent, action)
        latent = dynamics.cell.draw(dynamics.cell.prior(deter), self._uniform(deter, generator))
        following = self._carry(deter, latent)
        reward, logit = heads.outcome(dynamics.outcome_features(state.latent, deter, latent))
        own, _ = heads.decode_obs(join(deter, latent))
        prediction = Prediction(
            obs=layout.denormalize(layout.spread_rows(own)),
            state=self.units.state.denormalize(following.state),
            reward=self.units.env_reward(reward),
            continuation=logit.sigmoid(),
        )
        return following, prediction

    @torch.no_grad()
    def observe(self, state: RssmState, transition: Transition, *, generator: torch.Generator) -> RssmState:
        """Absorb one real step: the latents are drawn from the posterior. The global state is not looked at."""
        evidence = self.dynamics.evidence(transition.obs)
        uniform, has_past = self._uniform(state.deter, generator), (~transition.is_first).to(evidence.dtype)
        deter, latent, _ = self.dynamics.absorb(
            state.deter, state.latent, transition.action, evidence, has_past, uniform
        )
        return self._carry(deter, latent)

    def view(self, state: RssmState) -> AgentView:
        """Actors see their own features; the critic all agents' features and the decoded global state, normalised."""
        actor = join(state.deter, state.latent)
        critic = torch.cat([actor.flatten(1), state.state], dim=1)
        return AgentView(actor=actor, critic=critic, state=self.units.state.denormalize(state.state))

    def _carry(self, deter: Tensor, latent: Tensor) -> RssmState:
        return RssmState(deter, latent, self.dynamics.heads.decode_state(join(deter, latent)))

    def _uniform(self, deter: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform numbers [B,N,G], one for each categorical variable."""
        shape = (*deter.shape[:2], self.config.dynamics.cell.groups)
        return torch.rand(shape, generator=generator, device=deter.device)
