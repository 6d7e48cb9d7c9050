"""A world model of your own, complete: `python -m examples.custom_world_model`.

Next state, reward and joint observation are linear in state and joint action, with Gaussian noise. Whatever keeps the
contract trains policies: `examples/configs/world_model/linear.yaml` makes this model a choice of `dima train`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from worldmodel.config import Config, OptimConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, LossOutput, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    """What `world_model._target_` names; every field is an option `world_model.NAME=...`."""

    optim: OptimConfig

    def build(self, spec: EnvSpec) -> LinearWorldModel:
        """A fresh model for the environment that `spec` describes."""
        return LinearWorldModel(self, spec)


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

    def __init__(self, config: LinearConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.obs_shape = (spec.num_agents, spec.obs_dim)
        self.actor_dim, self.critic_dim = spec.obs_dim, spec.state_dim
        self.dynamics = Dynamics(config.optim, spec)

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
        following = Now(next_state, obs.unflatten(1, self.obs_shape))
        continuation = torch.ones_like(reward[:, 0])  # this one never expects an end
        return following, Prediction(following.obs, following.state, reward[:, 0], continuation)

    def observe(self, state: Now, transition: Transition, *, generator: torch.Generator) -> Now:
        """In the real world: what is seen replaces what was carried."""
        return Now(state.state if transition.state is None else transition.state, transition.obs)

    def view(self, state: Now) -> AgentView:
        """Actors see their observations, the critic sees the state."""
        return AgentView(actor=state.obs, critic=state.state, state=state.state)


def main(overrides: list[str]) -> int:
    """Train a team inside this model: `dima train` finds it by the folder of its YAML and by its name."""
    from dima.run import cli  # here, because a model knows the contract and nothing above it

    choice = [f"hydra.searchpath=[file://{Path(__file__).parent / 'configs'}]", "world_model=linear"]
    return cli.main(["train", *choice, "env=toy/linear", "preset=smoke", "device=cpu", *overrides])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
