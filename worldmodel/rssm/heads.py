"""What is read from the agents' features: observations, the global state, the team's reward, whether it goes on.

Everything is in normalised units. Heads of one agent share weights; those of the team read all agents side by side.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from worldmodel.config import Config
from worldmodel.networks import mlp
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class HeadsConfig(Config):
    """Sizes of encoder and heads."""

    hidden_dim: int
    """Width of their hidden layers."""
    embed_dim: int
    """Width of an encoded observation."""
    encoder_layers: int
    """Hidden layers of the observation encoder."""
    decoder_layers: int
    """Hidden layers of the observation decoder and of the state decoder."""
    outcome_layers: int
    """Hidden layers of the reward and of the continuation head."""

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        for field in dataclasses.fields(self):
            self.require(getattr(self, field.name) >= 1, field.name, "at least 1")


class Heads(nn.Module):
    """Observation encoder, and decoders of features [*,N,F].

    Args:
        config: see `HeadsConfig`.
        spec: gives N, O, S and A.
        feature_dim: F.
        predict_actions: whether to have a head that tells an agent's last action from its features.
    """

    def __init__(self, config: HeadsConfig, spec: EnvSpec, feature_dim: int, *, predict_actions: bool) -> None:
        super().__init__()
        hidden, joint_dim = config.hidden_dim, spec.num_agents * feature_dim
        deep = [hidden] * config.decoder_layers
        outcome = [joint_dim, *[hidden] * config.outcome_layers, 1]
        self.encoder = mlp([spec.obs_dim, *[hidden] * config.encoder_layers, config.embed_dim])
        self.obs_trunk = mlp([feature_dim, *deep], activate_last=True)
        self.obs_output = nn.Linear(hidden, max(spec.obs_sizes))
        # differs from source: MAMBA has no global state, and its agents predict rewards one by one, to be averaged.
        # Here the team's numbers are read from all agents' features at once, which the team's reward may need.
        self.state = mlp([joint_dim, *deep, spec.state_dim])
        self.reward = mlp(outcome, activation="elu")
        self.continuation = mlp(outcome, activation="elu")
        self.action = mlp([hidden, hidden, spec.action_dim]) if predict_actions else None

    def encode(self, obs: Tensor) -> Tensor:
        """Embeddings [*,N,E] of normalised observations [*,N,O]."""
        return self.encoder(obs)

    def decode_obs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The agents' own numbers [*,N,P], and the decoder's hidden units [*,N,hidden]."""
        hidden = self.obs_trunk(features)
        return self.obs_output(hidden), hidden

    def decode_state(self, features: Tensor) -> Tensor:
        """Global states [*,S]."""
        return self.state(features.flatten(-2))

    def outcome(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The team's reward [*], and the logit [*] of the episode going on."""
        joint = features.flatten(-2)  # [*, N, F] -> [*, N*F]
        return self.reward(joint)[..., 0], self.continuation(joint)[..., 0]


def join(deter: Tensor, latent: Tensor) -> Tensor:
    """An agent's features [*,F]: its deterministic state [*,D], then its latent [*,Z]."""
    return torch.cat([deter, latent], dim=-1)
