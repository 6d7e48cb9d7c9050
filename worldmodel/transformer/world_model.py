"""The transformer world model whole: tokenizer, dynamics and state estimator behind the `WorldModel` contract.

After MARIE, "Decentralized Transformers with Centralized Aggregation are Sample-Efficient Multi-Agent World Models"
(Zhang et al., TMLR 2025, arXiv 2406.15836).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worldmodel.causal_transformer import KeyValueCache
from worldmodel.config import Config
from worldmodel.normalize import RunningNormalizer, absorb
from worldmodel.observation_layout import ObservationLayout
from worldmodel.protocol import TrainablePart
from worldmodel.shapes import check_shape
from worldmodel.transformer.dynamics import DynamicsConfig, TokenDynamics
from worldmodel.transformer.reconstructed_obs import ReconstructedObs, show_reconstructed
from worldmodel.transformer.state_estimator import StateEstimator, StateEstimatorConfig
from worldmodel.transformer.tokenizer import ObservationTokenizer, TokenizerConfig
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class TransformerConfig(Config):
    """Every option of the transformer world model."""

    std_floor: float
    """Smallest standard deviation to normalise observations, states and rewards by, in the environment's units."""
    freeze_normalizers_after: int | None
    """Env steps after which the running statistics stay as they are; null: never."""
    normalize_obs: bool
    """Show actors observations normalised by running statistics (MARIE shows them as they come)."""
    tokenizer: TokenizerConfig
    """Observations to tokens and back."""
    dynamics: DynamicsConfig
    """The transformer over tokens."""
    state: StateEstimatorConfig
    """Joint observations to the global state."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.std_floor > 0, "std_floor", "a number above 0")

    def build(self, spec: EnvSpec) -> TransformerWorldModel:
        """The model for an environment, its weights drawn from torch's default generator."""
        return TransformerWorldModel(self, spec)


@dataclasses.dataclass(frozen=True)
class TransformerState(TensorStruct):
    """What a rollout carries."""

    tokens: Tensor
    """[B,N,L] every agent's observation now, as tokens."""
    z: Tensor
    """[B,N,P] these observations reconstructed from the tokens, standardised."""
    state: Tensor
    """[B,S] the estimate of the global state, in the environment's units."""
    cache: KeyValueCache | None
    """Keys and values of the imagined steps so far; None before the first."""


class TransformerWorldModel(nn.Module):
    """The `WorldModel` of MARIE. Decentralised: an actor sees its own observation alone, through the tokenizer."""

    context_length = 0  # MARIE starts imagination without burn-in
    decentralized = True

    def __init__(self, config: TransformerConfig, spec: EnvSpec) -> None:
        """Build all parts for the sizes of `spec`."""
        super().__init__()
        self.config = config
        self.spec = spec
        floor, freeze = config.std_floor, config.freeze_normalizers_after
        self.obs_norm = RunningNormalizer(spec.num_agents * spec.obs_dim, std_floor=floor, freeze_after=freeze)
        self.state_norm = RunningNormalizer(spec.state_dim, std_floor=floor, freeze_after=freeze)
        self.reward_norm = RunningNormalizer(1, std_floor=floor, freeze_after=freeze)
        self.layout = ObservationLayout(spec, self.obs_norm)
        self.tokenizer = ObservationTokenizer(config.tokenizer, self.layout)
        self.dynamics = TokenDynamics(config.dynamics, spec, self.layout, self.tokenizer, self.reward_norm)
        self.state_estimator = StateEstimator(config.state, self.layout, self.tokenizer, self.state_norm)
        self.actor_dim = spec.obs_dim
        self.critic_dim = self.layout.packed_dim

    def parts(self) -> Mapping[str, TrainablePart]:
        """The tokenizer first: the others read what it writes."""
        return {"tokenizer": self.tokenizer, "dynamics": self.dynamics, "state": self.state_estimator}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's observations, states and rewards into the running statistics."""
        absorb(trajectory, state=self.state_norm, obs=self.obs_norm, reward=self.reward_norm)

    @torch.no_grad()
    def start(self, context: Segment, *, generator: torch.Generator) -> TransformerState:
        """The carry for B rollouts from the last observation of `context` (K = 0 transitions); draws nothing.

        Raises:
            ValueError: when the context's shapes do not fit the environment.
        """
        check_shape("context.obs", context.obs, "B K+1 N O", K=0, N=self.spec.num_agents, O=self.spec.obs_dim)
        return self._seen(context.obs[:, -1])

    @torch.no_grad()
    def step(
        self, state: TransformerState, action: Tensor, *, generator: torch.Generator
    ) -> tuple[TransformerState, Prediction]:
        """One imagined transition: reward and end, then every agent's next tokens, one after the other."""
        cache, tokens, reward, continuation = self.dynamics.step(state.cache, state.tokens, action, generator)
        following = self._carry(tokens, cache)
        obs = self.layout.denormalize(self.layout.spread_rows(following.z))
        return following, Prediction(obs, following.state, reward, continuation)

    @torch.no_grad()
    def observe(
        self, state: TransformerState, transition: Transition, *, generator: torch.Generator
    ) -> TransformerState:
        """Absorb one real step: its observations replace whatever was carried.

        Actors see reconstructions in the real world too, as in imagination (MARIE).
        """
        return self._seen(transition.obs)

    def view(self, state: TransformerState) -> AgentView:
        """Actors see their own reconstructed observation, the critic those of all, standardised, side by side."""
        obs = show_reconstructed(self.layout, state.z, normalize_obs=self.config.normalize_obs)
        critic = self.layout.pack(self.layout.spread_rows(state.z))
        return AgentView(actor=obs, critic=critic, state=state.state)

    @property
    def actor_view(self) -> ReconstructedObs:
        """A fresh module [B,N,O] -> [B,N,F]: what actors see of present observations, for `dima export`."""
        return ReconstructedObs(self.tokenizer, self.layout, self.obs_norm, normalize_obs=self.config.normalize_obs)

    def _seen(self, obs: Tensor) -> TransformerState:
        """The carry of agents who see `obs` [B,N,O] and have imagined nothing yet."""
        return self._carry(self.tokenizer.encode(self.layout.normalized_rows(obs)), None)

    def _carry(self, tokens: Tensor, cache: KeyValueCache | None) -> TransformerState:
        z = self.tokenizer.decode(tokens)
        return TransformerState(tokens, z, self.state_estimator.estimate(z), cache)
