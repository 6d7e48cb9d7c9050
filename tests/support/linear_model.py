"""A small plug-in world model with linear parts: what somebody outside the project would write, and fast to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worldmodel.config import Config, OptimConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, LossOutput, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class LinearModelConfig(Config):
    """The linear model's options."""

    learning_rate: float = 1e-2
    batch_size: int = 16
    noise_std: float = 0.01
    """Standard deviation of the noise on an imagined state."""
    poison_at: int = 0
    """Update of the dynamics at which its loss becomes NaN; 0: never."""

    def build(self, spec: EnvSpec) -> LinearModel:
        """The model for an environment."""
        return LinearModel(self, spec)


@dataclasses.dataclass(frozen=True)
class LinearState(TensorStruct):
    """The carry: `state` [B,S] and `obs` [B,N,O] now."""

    state: Tensor
    obs: Tensor


class Dynamics(TrainablePart):
    """Next state and reward from state and joint action; counts its updates in a buffer."""

    segment_length = 2
    burn_in = 0

    def __init__(self, config: LinearModelConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.optim = OptimConfig(
            learning_rate=config.learning_rate,
            weight_decay=0.01,
            grad_clip=1.0,
            batch_size=config.batch_size,
            warmup_updates=5,
        )
        self.poison_at = config.poison_at
        self.calls = 0
        self.linear = nn.Linear(spec.state_dim + spec.num_agents * spec.action_dim, spec.state_dim + 1)
        self.dropout = nn.Dropout(0.1)  # draws from torch's own generator, which a resumed run must restore too

    def predict(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Next state [B,S] and reward [B]."""
        out = self.linear(self.dropout(torch.cat([state, action.flatten(1)], dim=1)))
        return state + out[:, :-1], out[:, -1]

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Squared errors on the last transition, whose input is jittered with `generator`."""
        state = segment.state[:, -2]
        state = state + 1e-3 * torch.randn(state.shape, generator=generator, device=state.device)
        next_state, reward = self.predict(state, segment.action[:, -1])
        error = (next_state - segment.state[:, -1]).square().mean(1) + (reward - segment.reward[:, -1]).square()
        valid = segment.valid[:, -1]
        loss = (error * valid).sum() / valid.sum().clamp(min=1)
        self.calls += 1
        if self.calls == self.poison_at:
            loss = loss * torch.nan
        return LossOutput(loss, {})


class Decoder(TrainablePart):
    """Joint observations from the state."""

    segment_length = 1
    burn_in = 0

    def __init__(self, config: LinearModelConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.optim = OptimConfig(
            learning_rate=config.learning_rate, weight_decay=0.0, grad_clip=1.0, batch_size=config.batch_size
        )
        self.shape = (spec.num_agents, spec.obs_dim)
        self.linear = nn.Linear(spec.state_dim, spec.num_agents * spec.obs_dim)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Squared error on the first observation."""
        error = (self.decode(segment.state[:, 0]) - segment.obs[:, 0]).square().mean()
        return LossOutput(error, {"decoder_error": error.detach().sqrt()})

    def decode(self, state: Tensor) -> Tensor:
        """Observations [B,N,O]."""
        return self.linear(state).unflatten(1, self.shape)


class LinearModel(nn.Module):
    """Keeps the `WorldModel` contract with two linear parts."""

    context_length = 1
    decentralized = True
    num_seen: Tensor

    def __init__(self, config: LinearModelConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config = config
        self.actor_dim = spec.obs_dim
        self.critic_dim = spec.state_dim
        self.dynamics = Dynamics(config, spec)
        self.decoder = Decoder(config, spec)
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))

    def parts(self) -> Mapping[str, TrainablePart]:
        """Both parts."""
        return {"dynamics": self.dynamics, "decoder": self.decoder}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Count transitions."""
        self.num_seen += trajectory.length

    def start(self, context: Segment, *, generator: torch.Generator) -> LinearState:
        """The context's last state."""
        return LinearState(context.state[:, -1], context.obs[:, -1])

    @torch.no_grad()
    def step(self, state: LinearState, action: Tensor, *, generator: torch.Generator) -> tuple[LinearState, Prediction]:
        """The predicted mean plus a little noise."""
        next_state, reward = self.dynamics.predict(state.state, action)
        noise = torch.randn(next_state.shape, generator=generator, device=next_state.device)
        next_state = next_state + self.config.noise_std * noise
        obs = self.decoder.decode(next_state)
        return LinearState(next_state, obs), Prediction(obs, next_state, reward, torch.ones_like(reward))

    def observe(self, state: LinearState, transition: Transition, *, generator: torch.Generator) -> LinearState:
        """What is real replaces what was carried."""
        seen = state.state if transition.state is None else transition.state
        return LinearState(seen, transition.obs)

    def view(self, state: LinearState) -> AgentView:
        """Observations for the actors, the state for the critic."""
        return AgentView(actor=state.obs, critic=state.state, state=state.state)
