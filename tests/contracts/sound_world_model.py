"""A small world model that keeps the contract, for others to break in one thing each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.config import OptimConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, LossOutput, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class SoundState(TensorStruct):
    """States now and before [B,2,S], zeros where missing, and observations [B,N,O]."""

    states: Tensor
    obs: Tensor


class Dynamics(TrainablePart):
    """The next state and the reward, linear in two states and the joint action."""

    segment_length = 3
    burn_in = 1
    optim = OptimConfig(learning_rate=1e-3, weight_decay=0.0, grad_clip=1.0, batch_size=4)

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * spec.state_dim + spec.num_agents * spec.action_dim, spec.state_dim + 2)

    def predict(self, states: Tensor, action: Tensor) -> Tensor:
        """[B,S+2]: next state, reward, logit of continuation."""
        return self.linear(torch.cat([states.flatten(1), action.flatten(1)], dim=1))

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Squared error on the last transition, whose target is jittered with `generator`."""
        out = self.predict(segment.state[:, 1:3], segment.action[:, 2])
        jitter = 0.1 * torch.randn(out.shape, generator=generator)
        target = torch.cat([segment.state[:, 3], segment.reward[:, 2:], segment.terminated[:, 2:].float()], dim=1)
        valid = segment.valid[:, 2]
        loss = ((out - target - jitter).square().mean(dim=1) * valid).sum() / valid.sum().clamp(min=1)
        return LossOutput(loss, {"error": loss.detach()})


class Decoder(TrainablePart):
    """Observations from the state; padding and ids are known."""

    segment_length = 1
    burn_in = 0
    optim = Dynamics.optim
    is_own: Tensor
    known: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.state_dim, spec.num_agents * spec.obs_dim)
        self.register_buffer("is_own", spec.own_obs_mask(), persistent=False)
        self.register_buffer("known", spec.known_obs(), persistent=False)

    def decode(self, state: Tensor) -> Tensor:
        """[B,S] -> [B,N,O]."""
        return torch.where(self.is_own, self.linear(state).unflatten(1, self.is_own.shape), self.known)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Squared error on the first observation."""
        real = segment.state_valid()[:, 0]
        error = (self.decode(segment.state[:, 0]) - segment.obs[:, 0]).square().mean(dim=(1, 2))
        return LossOutput((error * real).sum() / real.sum().clamp(min=1), {})


class SoundModel(nn.Module):
    """Keeps every part of the contract."""

    context_length = 2
    decentralized = True
    mean: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.spec = spec
        self.actor_dim, self.critic_dim = spec.obs_dim, spec.state_dim
        self.dynamics, self.decoder = Dynamics(spec), Decoder(spec)
        self.register_buffer("mean", torch.zeros(spec.state_dim))

    def parts(self) -> Mapping[str, TrainablePart]:
        return {"dynamics": self.dynamics, "decoder": self.decoder}

    def update_statistics(self, trajectory: Trajectory) -> None:
        self.mean.copy_(trajectory.state.mean(dim=0))

    def start(self, context: Segment, *, generator: torch.Generator) -> Any:
        return SoundState(context.state[:, -2:], context.obs[:, -1])

    @torch.no_grad()
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        out = self.dynamics.predict(state.states - self.mean, action)
        next_state = out[:, :-2].tanh() + 0.1 * torch.randn(out[:, :-2].shape, generator=generator)
        obs = self.decoder.decode(next_state)
        following = SoundState(torch.stack([state.states[:, 1], next_state], dim=1), obs)
        return following, Prediction(obs, next_state, out[:, -2], out[:, -1].sigmoid())

    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        before = state.states[:, 1] * ~transition.is_first[:, None]
        now = torch.zeros_like(before) if transition.state is None else transition.state
        return SoundState(torch.stack([before, now], dim=1), transition.obs)

    def view(self, state: Any) -> AgentView:
        return AgentView(actor=state.obs, critic=state.states[:, 1])
