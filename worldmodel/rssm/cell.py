"""One step of the recurrent state-space model: agents exchange tokens, each one's GRU moves on, and latents are drawn.

Works on all agents at once, [B,N,...], with the same weights for each. Knows nothing of time, losses or units.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from worldmodel.config import Config
from worldmodel.networks import mlp
from worldmodel.rssm.attention import AgentAttention
from worldmodel.rssm.latent import log_probabilities, sample_one_hot
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class CellConfig(Config):
    """Sizes of the recurrent cell."""

    deter_dim: int
    """Width of an agent's deterministic state, the GRU's."""
    groups: int
    """Categorical variables in an agent's stochastic latent."""
    classes: int
    """Classes of each of them."""
    uniform_mix: float
    """Share of the uniform law in prior and posterior, which keeps every class possible; 0: none."""
    hidden_dim: int
    """Width of the agents' tokens, and of the prior's and the posterior's hidden layer."""
    attention_layers: int
    """Layers of attention between the agents."""
    attention_heads: int
    """Heads of each layer."""
    dropout: float
    """Dropout inside the attention layers while fitting."""

    def validate(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("deter_dim", "groups", "hidden_dim", "attention_heads"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.classes >= 2, "classes", "at least 2")
        self.require(0 <= self.uniform_mix < 1, "uniform_mix", "a number in [0, 1)")
        self.require(self.attention_layers >= 0, "attention_layers", "at least 0")
        self.require(0 <= self.dropout < 1, "dropout", "a probability in [0, 1)")
        divisor = f"a divisor of hidden_dim = {self.hidden_dim}"
        self.require(self.hidden_dim % self.attention_heads == 0, "attention_heads", divisor)

    @property
    def latent_dim(self) -> int:
        """Numbers in one agent's stochastic latent."""
        return self.groups * self.classes

    @property
    def feature_dim(self) -> int:
        """Numbers in one agent's features [h, z]."""
        return self.deter_dim + self.latent_dim


class RssmCell(nn.Module):
    """Transition, prior and posterior of all agents; deter [B,N,D], latent [B,N,Z], action [B,N,A] in [-1, 1].

    Args:
        config: see `CellConfig`.
        spec: gives N and A.
        embed_dim: E, width of an encoded observation.
        communication: whether agents attend to each other.
    """

    def __init__(self, config: CellConfig, spec: EnvSpec, embed_dim: int, *, communication: bool) -> None:
        super().__init__()
        self.config = config
        hidden, latent = config.hidden_dim, config.latent_dim
        self.token = nn.Linear(latent + spec.action_dim, hidden)
        # differs from source: learned, where MAMBA's code adds a sinusoid of the agent's number.
        self.agent = nn.Parameter(torch.empty(spec.num_agents, hidden))
        self.attention = AgentAttention(
            hidden, config.attention_layers, config.attention_heads, config.dropout, communication=communication
        )
        self.gru = nn.GRUCell(hidden, config.deter_dim)
        self.prior_head = mlp([config.deter_dim, hidden, latent])
        # One hidden layer on both inputs; what comes from the observation does not have to wait for its turn in time.
        self.posterior_obs = nn.Linear(embed_dim, hidden)
        self.posterior_deter = nn.Linear(config.deter_dim, hidden, bias=False)
        self.posterior_head = nn.Linear(hidden, latent)

    def transition(
        self, deter: Tensor, latent: Tensor, action: Tensor, dropout_generator: torch.Generator | None = None
    ) -> Tensor:
        """The next deterministic states [B,N,D]; zeros for deter, latent and action stand before an episode's start."""
        token = self.token(torch.cat([latent, action], dim=-1)).relu() + self.agent
        message = self.attention(token, dropout_generator)
        return self.gru(message.flatten(0, 1), deter.flatten(0, 1)).view_as(deter)

    def prior(self, deter: Tensor) -> Tensor:
        """Logits [*,G,C] of the latent, from deter [*,D]."""
        return self._by_group(self.prior_head(deter))

    def posterior(self, deter: Tensor, evidence: Tensor) -> Tensor:
        """Logits [*,G,C] of the latent, from deter [*,D] and `posterior_obs` of the encoded observation."""
        return self._by_group(self.posterior_head((self.posterior_deter(deter) + evidence).relu()))

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Latents [*,Z] drawn with uniform numbers [*,G], with a straight-through gradient."""
        return sample_one_hot(logits, self.config.uniform_mix, uniform).flatten(-2)

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities [*,G,C] of the law that `draw` draws from."""
        return log_probabilities(logits, self.config.uniform_mix)

    def _by_group(self, logits: Tensor) -> Tensor:
        return logits.unflatten(-1, (self.config.groups, self.config.classes))  # [*, Z] -> [*, G, C]
