"""A world model of your own, complete; `docs/plug_in_a_world_model.md` walks through it.

Next state, reward and joint observation are linear in state and joint action, with Gaussian noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worldmodel.config import Config, OptimConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, LossOutput, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    """What `world_model._target_` names; every field is an option `world_model.NAME=...`."""

    learning_rate: float = 3e-3
    batch_size: int = 128

    def build(self, spec: EnvSpec) -> LinearWorldModel:
        """A fresh model for the environment that `spec` describes."""
        return LinearWorldModel(self, spec)

    def validate(self) -> None:
        """Refuse what cannot train: the error names the option, its value and what was expected."""
        self.require(self.learning_rate > 0, "learning_rate", "a number above 0")


@dataclasses.dataclass(frozen=True)
class Now(TensorStruct):
    """The carry between two steps; only the model itself looks inside. `state` [B,S], `obs` [B,N,O]."""

    state: Tensor
    obs: Tensor


class Dynamics(TrainablePart):
    """(state, joint action) -> mean and standard deviation of (next state, reward, joint observation)."""

    segment_length = 1  # one transition is enough to learn from
    burn_in = 0

    def __init__(self, optim: OptimConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.optim = optim
        self.sizes = [spec.state_dim, 1, spec.num_agents * spec.obs_dim]
        self.mean = nn.Linear(spec.state_dim + spec.num_agents * spec.action_dim, sum(self.sizes))
        self.log_std = nn.Parameter(torch.zeros(sum(self.sizes)))

    def predict(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, [B, S+1+N*O] each; the action is [B,N,A]."""
        mean = self.mean(torch.cat([state, action.flatten(1)], dim=1))
        return mean, self.log_std.clamp(-5.0, 2.0).exp().expand_as(mean)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Negative log-likelihood of the transitions, and the largest error for the log."""
        mean, std = self.predict(segment.state[:, 0], segment.action[:, 0])
        target = torch.cat([segment.state[:, 1], segment.reward[:, :1], segment.obs[:, 1].flatten(1)], dim=1)
        error = (target - mean) / std
        loss = (0.5 * error.square() + std.log()).mean(dim=1)
        loss = (loss * segment.valid[:, 0]).sum() / segment.valid[:, 0].sum().clamp(min=1)
        return LossOutput(loss, {"dynamics_largest_error": error.detach().abs().max()})


class LinearWorldModel(nn.Module):
    """Keeps `worldmodel.protocol.WorldModel`."""

    context_length = 0  # the current state says everything
    decentralized = True  # an actor sees its own observation and nothing else
    is_own: Tensor
    known_obs: Tensor

    def __init__(self, config: LinearConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.register_buffer("is_own", spec.own_obs_mask(), persistent=False)
        self.register_buffer("known_obs", spec.known_obs(), persistent=False)  # zeros as padding, and agents' ids
        self.actor_dim, self.critic_dim = spec.obs_dim, spec.state_dim
        optim = OptimConfig(config.learning_rate, weight_decay=0.0, grad_clip=10.0, batch_size=config.batch_size)
        self.dynamics = Dynamics(optim, spec)

    def parts(self) -> Mapping[str, TrainablePart]:
        """What is trained, by name."""
        return {"dynamics": self.dynamics}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Nothing is normalised here."""

    def start(self, context: Segment, *, generator: torch.Generator) -> Now:
        """Imagination starts from the context's last state."""
        return Now(context.state[:, -1], context.obs[:, -1])

    def step(self, state: Now, action: Tensor, *, generator: torch.Generator) -> tuple[Now, Prediction]:
        """Draw one imagined transition."""
        mean, std = self.dynamics.predict(state.state, action)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        next_state, reward, obs = (mean + std * noise).split(self.dynamics.sizes, dim=1)
        following = Now(next_state, torch.where(self.is_own, obs.unflatten(1, self.is_own.shape), self.known_obs))
        continuation = torch.ones_like(reward[:, 0])  # this one never expects an end
        return following, Prediction(following.obs, following.state, reward[:, 0], continuation)

    def observe(self, state: Now, transition: Transition, *, generator: torch.Generator) -> Now:
        """In the real world: what is seen replaces what was carried."""
        unseen = state.state * ~transition.is_first[:, None]  # a new episode knows nothing of the one before
        return Now(unseen if transition.state is None else transition.state, transition.obs)

    def view(self, state: Now) -> AgentView:
        """Actors see their observations, the critic sees the state."""
        return AgentView(actor=state.obs, critic=state.state, state=state.state)
