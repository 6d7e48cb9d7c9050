"""A toy system's own law as a `WorldModel`: what a perfect model scores, wherever models are measured.

There is nothing to learn, so it has no parts. It draws the next state from the exact law, with its own noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from envs.toy.bimodal import BimodalConfig
from envs.toy.linear import LinearConfig
from envs.toy.system import System
from worldmodel.config import Config, ConfigError
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class OracleConfig(Config):
    """The perfect model of a toy system."""

    system: LinearConfig | BimodalConfig
    """The environment whose law it knows."""

    def build(self, spec: EnvSpec) -> OracleModel:
        """The model; raises `ConfigError` when `spec` is that of another environment."""
        system = self.system.build().system
        if system.spec != spec:
            raise ConfigError(f"OracleConfig.system is {system.spec}: expected the system of {spec}")
        return OracleModel(system)


@dataclasses.dataclass(frozen=True)
class OracleState(TensorStruct):
    """The carry: `state` [B,S] and `obs` [B,N,O] now."""

    state: Tensor
    obs: Tensor


class OracleModel(nn.Module):
    """Keeps the `WorldModel` contract, and `StateDecoding`. The law is computed in float64 on the CPU."""

    context_length = 0
    decentralized = True

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system
        self.actor_dim = system.spec.obs_dim
        self.critic_dim = system.spec.state_dim

    def parts(self) -> Mapping[str, TrainablePart]:
        """Nothing is trained."""
        return {}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Nothing: the law is known."""

    def start(self, context: Segment, *, generator: torch.Generator) -> OracleState:
        """The context's last state; draws nothing."""
        return OracleState(context.state[:, -1], context.obs[:, -1])

    def step(self, state: OracleState, action: Tensor, *, generator: torch.Generator) -> tuple[OracleState, Prediction]:
        """A draw from the law; reward, termination and observations are functions of where it leads.

        The noise is the same for the same generator state, whatever `state` and `action` are.
        """
        controls = _numpy(action).clip(-1.0, 1.0)
        reached = self._draw(_numpy(state.state), controls, generator)
        device = state.state.device
        next_state = torch.from_numpy(reached).float().to(device)
        reward = torch.from_numpy(self.system.reward(reached, controls)).float().to(device)
        continuation = torch.from_numpy(~self.system.is_terminal(reached)).float().to(device)
        obs = self.decode_states(next_state)
        return OracleState(next_state, obs), Prediction(obs, next_state, reward, continuation)

    def observe(self, state: OracleState, transition: Transition, *, generator: torch.Generator) -> OracleState:
        """What is real replaces what was carried; where no global state is given, a draw from the law stands in.

        At an episode's first step, without a state, it is the mean of the first states: zero.
        """
        if transition.state is not None:
            return OracleState(transition.state, transition.obs)
        following, _ = self.step(state, transition.action, generator=generator)
        return OracleState(following.state * ~transition.is_first[:, None], transition.obs)

    def view(self, state: OracleState) -> AgentView:
        """Actors see their own observation, the critic the global state."""
        return AgentView(actor=state.obs, critic=state.state, state=state.state)

    def decode_states(self, state: Tensor) -> Tensor:
        """Exact observations [B,N,O] of `state` [B,S]."""
        return torch.from_numpy(self.system.observe(_numpy(state))).float().to(state.device)

    def _draw(self, state: np.ndarray, action: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Next states [B,S], rounded to float32 as the environment does."""
        law = self.system.mixture(state, action)
        rows, dim = state.shape
        chance = torch.rand(rows, generator=generator, device=generator.device)
        noise = torch.randn(rows, dim, generator=generator, device=generator.device)
        mode = np.searchsorted(law.weight.cumsum()[:-1], _numpy(chance), side="right")
        reached = law.mean[mode, np.arange(rows)] + law.std * _numpy(noise)
        return reached.astype(np.float32).astype(np.float64)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
