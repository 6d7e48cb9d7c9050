"""The reward and termination model: what a joint action earns, and whether it ends the episode.

A causal transformer over s_1, a_1, s_2, a_2, ... after DIMA (appendix G.1, eq. 23), read at the action tokens. Trained
on windows of real steps, it walks through imagination with a key-value cache, one state and one joint action at a time.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.action_tokens import AttentionActionEncoder, LinearActionEncoder
from worldmodel.causal_transformer import CausalTransformer, KeyValueCache, initialize_weights
from worldmodel.config import Config, OptimConfig
from worldmodel.losses import masked_mean
from worldmodel.networks import mlp
from worldmodel.normalize import RunningNormalizer
from worldmodel.protocol import TrainablePart
from worldmodel.types import EnvSpec, LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class RewardTerminationConfig(Config):
    """Shape and fitting of the reward and termination model."""

    embed_dim: int
    """Width of the tokens."""
    num_layers: int
    """Transformer blocks."""
    num_heads: int
    """Attention heads of each block."""
    embedding_dropout: float
    """Dropout of the embedded tokens."""
    attention_dropout: float
    """Dropout of the attention weights."""
    residual_dropout: float
    """Dropout of what each block adds."""
    window: int
    """Steps the model can look back over, and the length of its training segments."""
    head_layers: int
    """Linear layers of the reward head and of the termination head."""
    action_encoder: Literal["attention", "linear"]
    """attention: layers of attention over agent tokens (the authors' published code); linear: one linear map."""
    action_layers: int
    """attention: layers over the agents."""
    action_heads: int
    """attention: heads of each layer."""
    action_head_dim: int
    """attention: width of each head."""
    end_loss: Literal["bernoulli", "cross_entropy"]
    """bernoulli: one logit of continuation; cross_entropy: two logits, as the paper words it."""
    reward_target: Literal["raw", "normalized"]
    """Units the network is fitted in: the environment's, or in standard deviations of the rewards seen so far."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        sizes = ("embed_dim", "num_layers", "num_heads", "window", "head_layers")
        for name in (*sizes, "action_layers", "action_heads", "action_head_dim"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            self.require(0 <= getattr(self, name) < 1, name, "a probability in [0, 1)")
        self.require(self.embed_dim % self.num_heads == 0, "num_heads", f"a divisor of embed_dim = {self.embed_dim}")


class RewardTerminationModel(TrainablePart):
    """Predicts the team's reward and the probability that the episode goes on, from states and joint actions so far.

    States are normalised (std 1), actions lie in [-1, 1], rewards come out in the environment's units.

    Args:
        config: see `RewardTerminationConfig`.
        spec: gives S, N and A.
        state_norm: running statistics of the state [S].
        reward_norm: running statistics of the reward [1].
    """

    burn_in = 0

    def __init__(
        self,
        config: RewardTerminationConfig,
        spec: EnvSpec,
        state_norm: RunningNormalizer,
        reward_norm: RunningNormalizer,
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = config.optim
        self.segment_length = config.window
        # In a tuple, so that they are not registered here: the world model owns, moves and saves the normalisers.
        self._norms = (state_norm, reward_norm)
        dim = config.embed_dim
        self.state_encoder = nn.Sequential(
            nn.Linear(spec.state_dim, dim),
            nn.LayerNorm(dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
            nn.LayerNorm(dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
        )
        self.action_encoder = _build_action_encoder(config, spec)
        hidden = [dim] * config.head_layers
        self.reward_head = mlp([*hidden, 1])
        self.end_head = mlp([*hidden, 1 if config.end_loss == "bernoulli" else 2])
        self.apply(initialize_weights)
        self.transformer = CausalTransformer(
            dim,
            config.num_layers,
            config.num_heads,
            2 * config.window,
            config.embedding_dropout,
            config.attention_dropout,
            config.residual_dropout,
        )

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Smooth-L1 loss of the reward plus the loss of the end, averaged over the valid steps of `segment` [B,T].

        Only `terminated` counts as an end: a time limit says nothing about the state. Metrics: `reward_loss`,
        `termination_loss`, `reward_error` (mean absolute, in the environment's units), `termination_recall` (share
        of the real ends given more than one half; 1 where the batch has none) and `termination_rate`. Dropout draws
        from torch's global generator; `generator` is not used.
        """
        order = _real_steps_first(segment.valid)
        row = torch.arange(order.shape[0], device=order.device)[:, None]
        state, action = segment.state[row, order], segment.action[row, order]
        reward, terminated, valid = (
            segment.reward[row, order],
            segment.terminated[row, order],
            segment.valid[row, order],
        )

        hidden = self._hidden(self._norms[0].normalize(state), action)
        predicted = self.reward_head(hidden)[..., 0]
        end_logits = self.end_head(hidden)
        target = reward if self.config.reward_target == "raw" else self._normalize_reward(reward)
        reward_loss = masked_mean(functional.smooth_l1_loss(predicted, target, reduction="none"), valid)
        termination_loss = masked_mean(self._end_loss(end_logits, terminated), valid)
        with torch.no_grad():
            ended = terminated & valid
            missed = ended & (self._continuation(end_logits) >= 0.5)
            metrics = {
                "reward_loss": reward_loss.detach(),
                "termination_loss": termination_loss.detach(),
                "reward_error": masked_mean((self._env_reward(predicted) - reward).abs(), valid),
                "termination_recall": 1 - missed.sum() / ended.sum().clamp(min=1),
                "termination_rate": ended.sum() / valid.sum().clamp(min=1),
            }
        return LossOutput(reward_loss + termination_loss, metrics)

    def initial_cache(self, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> KeyValueCache:
        """The memory of `batch_size` rollouts that have not yet begun: imagination starts without burn-in."""
        return self.transformer.initial_cache(batch_size, device, dtype)

    @torch.no_grad()
    def step(self, cache: KeyValueCache, z: Tensor, action: Tensor) -> tuple[KeyValueCache, Tensor, Tensor]:
        """What the joint `action` earns in the state z, and how likely the episode goes on.

        Never uses dropout, whatever the mode. A rollout that outlasts the window starts again from the current state
        alone.

        Args:
            cache: what came before, from `initial_cache` or the step before; stays usable.
            z: [B,S] normalised states.
            action: [B,N,A] in [-1, 1].

        Returns:
            The new cache, the expected reward [B] in the environment's units, and the probability [B] that the
            episode does not terminate here.
        """
        if cache.length == self.transformer.max_tokens:
            cache = self.initial_cache(z.shape[0], z.device, z.dtype)
        # The action's token and the next state's could share a call as well, but then each reward would wait for the
        # next state; state and action of the same step cost the same.
        cache, hidden = self.transformer.step(cache, self._tokens(z[:, None], action[:, None]))
        return cache, *self.read(hidden)

    def read(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the transformer's output [*,D] at action tokens says: expected reward and continuation [*]."""
        return self._env_reward(self.reward_head(hidden)[..., 0]), self._continuation(self.end_head(hidden))

    def _hidden(self, z: Tensor, action: Tensor) -> Tensor:
        """The transformer's outputs [B,T,D] at the action tokens of z [B,T,S] and action [B,T,N,A]."""
        return self.transformer(self._tokens(z, action), read=slice(1, None, 2))

    def _tokens(self, z: Tensor, action: Tensor) -> Tensor:
        """Interleave s_1, a_1, s_2, a_2, ... as [B,2*T,D]."""
        pairs = torch.stack([self.state_encoder(z), self.action_encoder(action)], dim=2)
        return pairs.flatten(1, 2)  # [B, T, 2, D] -> [B, 2*T, D]

    def _end_loss(self, logits: Tensor, terminated: Tensor) -> Tensor:
        """Loss [B,T] of the logits [B,T,1 or 2] against `terminated` [B,T]."""
        if self.config.end_loss == "bernoulli":
            continues = (~terminated).to(logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits[..., 0], continues, reduction="none")
        return functional.cross_entropy(logits.movedim(-1, 1), terminated.long(), reduction="none")

    def _continuation(self, logits: Tensor) -> Tensor:
        """The probability [*] that the episode goes on, from the logits [*, 1 or 2]."""
        if self.config.end_loss == "bernoulli":
            return logits[..., 0].sigmoid()
        return logits.softmax(dim=-1)[..., 0]

    def _normalize_reward(self, reward: Tensor) -> Tensor:
        return self._norms[1].normalize(reward[..., None])[..., 0]

    def _env_reward(self, predicted: Tensor) -> Tensor:
        if self.config.reward_target == "raw":
            return predicted
        return self._norms[1].denormalize(predicted[..., None])[..., 0]


def _real_steps_first(valid: Tensor) -> Tensor:
    """[B,T] the order of steps that rotates the first valid step to the front, as in imagination.

    Valid steps are contiguous, so behind them come only invalid ones, which causal attention hides from them.
    """
    first = valid.to(torch.uint8).argmax(dim=1)
    return (torch.arange(valid.shape[1], device=valid.device) + first[:, None]) % valid.shape[1]


def _build_action_encoder(config: RewardTerminationConfig, spec: EnvSpec) -> nn.Module:
    sizes = (spec.num_agents, spec.action_dim, config.embed_dim)
    if config.action_encoder == "linear":
        return LinearActionEncoder(*sizes)
    return AttentionActionEncoder(*sizes, config.action_layers, config.action_heads, config.action_head_dim)
