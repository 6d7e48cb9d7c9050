"""How tokens go on: a causal transformer over each agent's tokens, action and summary of what all agents do.

MARIE (arXiv 2406.15836): the transformer is shared by the agents and sees one agent's sequence at a time,

    o_1 .. o_L, a, s,  o_1 .. o_L, a, s,  ...

(L observation tokens, the action, the summary of all agents at that step). Its output at s says what is earned, whether
the episode goes on, and the first token of the next observation; its output at o_l says the next token o_{l+1}.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from worldmodel.causal_transformer import CausalTransformer, KeyValueCache, initialize_weights, widen_weights
from worldmodel.config import Config, OptimConfig
from worldmodel.losses import masked_mean
from worldmodel.networks import mlp
from worldmodel.normalize import RunningNormalizer
from worldmodel.observation_layout import ObservationLayout
from worldmodel.protocol import TrainablePart
from worldmodel.transformer.aggregation import AgentAggregation
from worldmodel.transformer.embedding import ActionEmbeddingKind, TokenEmbedding, TokenEmbeddingKind
from worldmodel.transformer.token_head import TokenHead
from worldmodel.transformer.tokenizer import ObservationTokenizer
from worldmodel.types import EnvSpec, LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class DynamicsConfig(Config):
    """Shape and fitting of the dynamics."""

    window: int
    """Steps the model can look back over, and the length of its training segments."""
    embed_dim: int
    """D: width of the embeddings."""
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
    aggregation_layers: int
    """Layers of attention among the summaries of the agents."""
    aggregation_heads: int
    """Heads of each attention in the aggregation."""
    aggregation_head_dim: int
    """Width of each of these heads."""
    aggregation_dropout: float
    """Dropout in the aggregation."""
    token_embedding: TokenEmbeddingKind
    """table: a learned vector a token (MARIE); code: a linear map of the token's channels."""
    action_embedding: ActionEmbeddingKind
    """linear: a linear map of the action vector; bins: learned vectors of binned entries, summed to one token."""
    action_bins: int
    """bins: how many for each entry of an action."""
    head_layers: int
    """Linear layers of the reward head and of the continuation head."""
    token_head_layers: int
    """Linear layers of the head that predicts tokens."""
    token_distribution: Literal["joint", "channels"]
    """joint: over all V tokens (MARIE); channels: one over the levels of each channel, independent within a token."""
    temperature: float
    """Of the tokens' distribution in imagination; 0: always the most probable token."""
    optim: OptimConfig
    """Of all of this."""
    initial_weights: Literal["gpt2", "wide"] = "gpt2"
    """gpt2: N(0, 0.02^2); wide: scaled to the width, for narrow models. A default, so that older runs can be read."""

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        sizes = ("window", "embed_dim", "num_layers", "num_heads", "head_layers", "token_head_layers", "action_bins")
        for name in (*sizes, "aggregation_heads", "aggregation_head_dim"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout", "aggregation_dropout"):
            self.require(0 <= getattr(self, name) < 1, name, "a probability in [0, 1)")
        self.require(self.aggregation_layers >= 0, "aggregation_layers", "at least 0")
        self.require(self.temperature >= 0, "temperature", "at least 0")
        self.require(self.embed_dim % self.num_heads == 0, "num_heads", f"a divisor of embed_dim = {self.embed_dim}")


class TokenDynamics(TrainablePart):
    """Predicts every agent's next tokens, the team's reward and whether the episode goes on.

    Each agent's sequence predicts the team's reward and end by itself, the team's are the mean. Observations are read
    through the tokenizer, which gets no gradient from here.

    Args:
        config: see `DynamicsConfig`.
        spec: gives N and A.
        layout: standardises observations.
        tokenizer: gives tokens.
        reward_norm: running statistics of the reward [1].
    """

    burn_in = 0

    def __init__(
        self,
        config: DynamicsConfig,
        spec: EnvSpec,
        layout: ObservationLayout,
        tokenizer: ObservationTokenizer,
        reward_norm: RunningNormalizer,
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = config.optim
        self.segment_length = config.window
        # In a tuple: the world model owns them.
        self._shared = (layout, tokenizer, reward_norm)
        dim, self.num_tokens = config.embed_dim, tokenizer.config.num_tokens
        self.embedding = TokenEmbedding(
            tokenizer.codes(torch.arange(tokenizer.config.num_codes)),
            spec.num_agents,
            self.num_tokens,
            spec.action_dim,
            dim,
            config.token_embedding,
            config.action_embedding,
            config.action_bins,
        )
        self.aggregation = AgentAggregation(
            spec.num_agents,
            dim,
            config.aggregation_layers,
            config.aggregation_heads,
            config.aggregation_head_dim,
            config.aggregation_dropout,
        )
        levels, num_codes = tokenizer.config.levels, tokenizer.config.num_codes
        sizes = levels if config.token_distribution == "channels" else (num_codes,)
        self.token_head = TokenHead(dim, config.token_head_layers, sizes)
        self.reward_head = mlp([*[dim] * config.head_layers, 1])
        self.continuation_head = mlp([*[dim] * config.head_layers, 1])
        for head in (self.reward_head, self.continuation_head):
            head.apply(initialize_weights)
        self.transformer = CausalTransformer(
            dim,
            config.num_layers,
            config.num_heads,
            # The last observation is predicted token by token as well, so all of it but the last token is read.
            config.window * (self.num_tokens + 2) + self.num_tokens - 1,
            config.embedding_dropout,
            config.attention_dropout,
            config.residual_dropout,
        )
        if config.initial_weights == "wide":
            widen_weights(self)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Cross entropy of tokens, smooth-L1 loss of the standardised reward and loss of the end, summed.

        Each is averaged over the valid steps of `segment` [B,T] and the agents; only `terminated` counts as an end.
        Metrics: `token_loss` (nats a token), `token_accuracy`, `reward_loss`, `termination_loss`, `reward_error` (mean
        absolute, in the environment's units). Dropout draws from torch's global generator; `generator` is not used.
        """
        layout, tokenizer, reward_norm = self._shared
        segment = valid_steps_first(segment)
        with torch.no_grad():
            tokens = tokenizer.encode(layout.normalized_rows(segment.obs))  # [B, T+1, N, L]
        hidden = self.hidden(tokens, segment.action)
        valid = segment.valid[:, :, None].expand(hidden.shape[:3])  # [B, T, N]

        logits, target = self.token_head.logits(hidden), tokens[:, 1:]
        every_token = valid[..., None].expand(target.shape)
        token_loss = masked_mean(self.token_head.loss(logits, target), every_token)

        reward, end_logit = self._heads(hidden[..., 0, :])
        target_reward = reward_norm.normalize(segment.reward[..., None]).expand_as(reward)
        reward_loss = masked_mean(functional.smooth_l1_loss(reward, target_reward, reduction="none"), valid)
        continues = (~segment.terminated).to(end_logit.dtype)[:, :, None].expand_as(end_logit)
        end_error = functional.binary_cross_entropy_with_logits(end_logit, continues, reduction="none")
        termination_loss = masked_mean(end_error, valid)
        with torch.no_grad():
            metrics = {
                "token_loss": token_loss,
                "token_accuracy": masked_mean((self.token_head.most_probable(logits) == target).float(), every_token),
                "reward_loss": reward_loss,
                "termination_loss": termination_loss,
                "reward_error": masked_mean((self._team_reward(reward) - segment.reward).abs(), segment.valid),
            }
        metrics = {name: value.detach() for name, value in metrics.items()}
        return LossOutput(token_loss + reward_loss + termination_loss, metrics)

    def hidden(self, tokens: Tensor, action: Tensor) -> Tensor:
        """Outputs [B,T,N,L,D] that predict, at each step and for each agent, the L tokens of the next observation.

        The first of the L is that at the summary, which also predicts the reward and the end.

        Args:
            tokens: [B,T+1,N,L]; of the last observation all but the last token are read.
            action: [B,T,N,A].
        """
        embedded = self.embedding.tokens(tokens)
        step = torch.cat([embedded[:, :-1], self.embedding.actions(action)[..., None, :]], dim=-2)
        summary = self.aggregation(step, drop=self.training)
        blocks = torch.cat([step, summary[..., None, :]], dim=-2)  # [B, T, N, L+2, D]
        last = embedded[:, -1, :, :-1].flatten(0, 1)
        # Agents go into the batch: [B, T, N, L+2, D] -> [B*N, T*(L+2), D]
        sequence = blocks.transpose(1, 2).flatten(0, 1).flatten(1, 2)
        # Outputs from the first summary on; two places are missing at the end to make whole blocks of them.
        out = self.transformer(torch.cat([sequence, last], dim=1), read=slice(self.num_tokens + 1, None))
        out = functional.pad(out, (0, 0, 0, 2)).unflatten(1, (-1, self.num_tokens + 2))[:, :, : self.num_tokens]
        return out.unflatten(0, (tokens.shape[0], -1)).transpose(1, 2)  # [B*N, T, L, D] -> [B, T, N, L, D]

    @torch.no_grad()
    def step(
        self, cache: KeyValueCache | None, tokens: Tensor, action: Tensor, generator: torch.Generator
    ) -> tuple[KeyValueCache, Tensor, Tensor, Tensor]:
        """Draw what follows when the agents, who see `tokens`, take the joint `action`.

        Never uses dropout, whatever the mode. A rollout that outlasts the window starts again from the current
        observations alone.

        Args:
            cache: the steps before and all but the last of `tokens`, its rows [B,N,..]; None: there are none.
            tokens: [B,N,L] of what the agents see now.
            action: [B,N,A] in [-1, 1].
            generator: tokens are drawn from it.

        Returns:
            The new cache, the next tokens [B,N,L], the expected reward [B] in the environment's units, and the
            probability [B] that the episode does not terminate here.
        """
        agents = tokens.shape[:2]
        embedded, acted = self.embedding.tokens(tokens), self.embedding.actions(action)
        step = torch.cat([embedded, acted[:, :, None]], dim=2)
        block = torch.cat([step, self.aggregation(step)[:, :, None]], dim=2)  # [B, N, L+2, D]
        if cache is None or cache.length + block.shape[2] > self.transformer.max_tokens:
            rows = agents[0] * agents[1]
            folded = self.transformer.initial_cache(rows, block.device, block.dtype)
        else:
            # All tokens but the last were written when they were drawn.
            folded, block = cache.map(lambda tensor: tensor.flatten(0, 1)), block[:, :, self.num_tokens - 1 :]
        folded, hidden = self.transformer.step(folded, block.flatten(0, 1))
        reward, end_logit = self._heads(hidden.unflatten(0, agents))
        drawn: list[Tensor] = []
        for place in range(self.num_tokens):
            if drawn:
                previous = self.embedding.one_token(drawn[-1], place - 1)
                folded, hidden = self.transformer.step(folded, previous.flatten(0, 1)[:, None])
            logits = self.token_head.logits(hidden.unflatten(0, agents))
            drawn.append(self.token_head.draw(logits, self.config.temperature, generator))
        # Batch first, so that rows of rollouts can be picked: [B*N, ..] -> [B, N, ..]
        following = folded.map(lambda tensor: tensor.unflatten(0, agents))
        continuation = end_logit.sigmoid().mean(dim=-1)
        return following, torch.stack(drawn, dim=-1), self._team_reward(reward), continuation

    def _heads(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What each agent's output [*,N,D] at the summary says: standardised reward and logit of continuation [*,N]."""
        return self.reward_head(hidden)[..., 0], self.continuation_head(hidden)[..., 0]

    def _team_reward(self, reward: Tensor) -> Tensor:
        """The team's reward [*] in the environment's units from every agent's standardised prediction [*,N]."""
        return self._shared[2].denormalize(reward.mean(dim=-1, keepdim=True))[..., 0]


def valid_steps_first(segment: Segment) -> Segment:
    """`segment` [B,T] with each row moved to the front, as in imagination.

    Valid steps are contiguous; what follows them is invalid and hidden from them by causal attention.
    """
    steps = segment.length
    first = segment.valid.to(torch.uint8).argmax(dim=1)
    state = (torch.arange(steps + 1, device=first.device) + first[:, None]).clamp(max=steps)
    inside = state[:, :-1] < steps
    transition = state[:, :-1].clamp(max=steps - 1)
    row = torch.arange(len(first), device=first.device)[:, None]
    return Segment(
        obs=segment.obs[row, state],
        state=segment.state[row, state],
        action=segment.action[row, transition],
        reward=segment.reward[row, transition],
        terminated=segment.terminated[row, transition] & inside,
        valid=segment.valid[row, transition] & inside,
    )
