"""The part that is fitted: filters windows of real steps, and asks everything that imagination will be asked.

The loss is MAMBA's (Egorov and Shpilman, AAMAS 2022, arXiv 2205.15023, and its published code), which is DreamerV2's
(arXiv 2010.02193) with one latent an agent: reconstruction, reward, continuation, and a balanced KL divergence.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.config import Config, OptimConfig
from worldmodel.losses import masked_mean
from worldmodel.protocol import TrainablePart
from worldmodel.rssm.cell import CellConfig, RssmCell
from worldmodel.rssm.heads import Heads, HeadsConfig, join
from worldmodel.rssm.latent import balanced_kl, kl_divergence
from worldmodel.rssm.units import Units
from worldmodel.types import EnvSpec, LossOutput, Segment


@dataclasses.dataclass(frozen=True)
class LossConfig(Config):
    """Weights of the losses; each is a mean over states or transitions, and over agents where agents have one each."""

    kl_weight: float
    """Of the KL divergence, which is a sum over the groups of an agent's latent, in nats."""
    kl_balance: float
    """Share of the KL's gradient that trains the prior; the rest trains the posterior."""
    free_nats: float
    """An agent's KL below this is not reduced further."""
    state_weight: float
    """Of the global state's reconstruction."""
    state_shapes_latents: bool
    """Whether that reconstruction trains the latents too, or only reads what they hold."""
    reward_weight: float
    """Of the team's reward."""
    continuation_weight: float
    """Of the continuation."""
    action_weight: float
    """Of telling an agent's last action from its features, which ties latents to their agents; 0: left out."""

    def validate(self) -> None:
        """Refuse weights that turn a loss around."""
        for name in ("kl_weight", "free_nats", "state_weight", "reward_weight", "continuation_weight", "action_weight"):
            self.require(getattr(self, name) >= 0, name, "at least 0")
        self.require(0 <= self.kl_balance <= 1, "kl_balance", "a number in [0, 1]")


@dataclasses.dataclass(frozen=True)
class DynamicsConfig(Config):
    """The recurrent model and how it is fitted."""

    segment_length: int
    """T: transitions in a training segment."""
    outcome_from: Literal["transition", "successor"]
    """What reward and continuation of step t are read from: `transition`, the latent before and the deterministic state
    after it (MAMBA's code); `successor`, both after it (DreamerV2), so that they fit the next state as it was drawn."""
    cell: CellConfig
    """The recurrent cell."""
    heads: HeadsConfig
    """Encoder and decoders."""
    loss: LossConfig
    """Weights of the losses."""
    optim: OptimConfig

    def validate(self) -> None:
        """Refuse an empty segment."""
        self.require(self.segment_length >= 1, "segment_length", "at least 1")


class Filtered(NamedTuple):
    """What filtering T+1 real states gives."""

    deter: Tensor
    """[B,T+1,N,D] deterministic states."""
    latent: Tensor
    """[B,T+1,N,Z] latents drawn from the posterior."""
    log_posterior: Tensor
    """[B,T+1,N,G,C] the posterior's log-probabilities."""


class Dynamics(TrainablePart):
    """The recurrent state-space model of all agents, its encoder and its heads.

    Every state of a segment counts, `burn_in` is 0: a segment may begin in the middle of an episode with nothing
    known before it, which is just how `WorldModel.start` filters its context, and how MAMBA and DreamerV2 train.

    Args:
        config: see `DynamicsConfig`.
        spec: gives N, O, S and A.
        units: the running statistics, owned by the world model.
        communication: whether agents attend to each other.
    """

    burn_in = 0
    independent = True
    action_mask: Tensor

    def __init__(self, config: DynamicsConfig, spec: EnvSpec, units: Units, *, communication: bool) -> None:
        super().__init__()
        self.config = config
        self.optim = config.optim
        self.segment_length = config.segment_length
        # In a tuple, so that it is not registered here: the world model owns, moves and saves the statistics.
        self._units = (units,)
        self.cell = RssmCell(config.cell, spec, config.heads.embed_dim, communication=communication)
        self.heads = Heads(config.heads, spec, config.cell.feature_dim, predict_actions=config.loss.action_weight > 0)
        self.register_buffer("action_mask", spec.action_mask(), persistent=False)
        for parameter in self.parameters():  # as in MAMBA's code: Xavier for every matrix
            if parameter.ndim >= 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """The weighted sum of all losses over the real states and transitions of `segment` [B,T].

        Only `terminated` counts as an end. Metrics: `obs_loss`, `state_loss`, `reward_loss`, `continuation_loss`,
        `action_loss` where there is one, and `kl`, an agent's KL divergence in nats.
        """
        units, weights = self._units[0], self.config.loss
        dropout_generator = generator if self.training else None
        filtered = self.filter(segment.obs, segment.action, segment.valid, generator, dropout_generator)
        real = segment.state_valid()
        features = join(filtered.deter, filtered.latent)
        own, hidden = self.heads.decode_obs(features)
        obs_error = functional.smooth_l1_loss(own, units.layout.normalized_rows(segment.obs), reduction="none")
        log_prior = self.cell.log_probs(self.cell.prior(filtered.deter))
        kl = balanced_kl(filtered.log_posterior, log_prior, weights.kl_balance, weights.free_nats)
        losses = {
            # Summed over an agent's numbers, averaged over the agents: [B, T+1, N, P] -> [B, T+1]
            "obs": masked_mean((obs_error * units.layout.row_mask).sum(dim=-1).mean(dim=-1), real),
            "state": masked_mean(self._state_error(features, segment.state), real),
            **self._outcome_losses(filtered, features, segment),
        }
        if weights.action_weight > 0:
            losses["action"] = self._action_loss(hidden, segment)
        with torch.no_grad():
            nats = kl_divergence(filtered.log_posterior, log_prior).mean(dim=-1)
            metrics = {f"{name}_loss": value.detach() for name, value in losses.items()}
            metrics["kl"] = masked_mean(nats, real)
        factors = {
            "obs": 1.0,
            "state": weights.state_weight,
            "reward": weights.reward_weight,
            "continuation": weights.continuation_weight,
            "action": weights.action_weight,
        }
        loss = weights.kl_weight * masked_mean(kl.mean(dim=-1), real)
        return LossOutput(loss + sum(factors[name] * value for name, value in losses.items()), metrics)

    def filter(
        self,
        obs: Tensor,
        action: Tensor,
        valid: Tensor,
        generator: torch.Generator,
        dropout_generator: torch.Generator | None = None,
    ) -> Filtered:
        """Latents of all states of a window, each drawn from the posterior given what was seen up to it.

        Args:
            obs: [B,T+1,N,O] in the environment's units.
            action: [B,T,N,A].
            valid: [B,T] bool; where a transition is not valid, the state behind it has no past.
            generator: draws the latents.
            dropout_generator: draws dropout; None: there is none.
        """
        config = self.config.cell
        batch, states, agents = obs.shape[:3]
        evidence = self.evidence(obs).unbind(1)
        uniform = torch.rand(states, batch, agents, config.groups, generator=generator, device=obs.device).unbind(0)
        has_past = functional.pad(valid.to(obs.dtype), (1, 0)).unbind(1)  # [B, T] -> T+1 of [B]
        led_here = functional.pad(action, (0, 0, 0, 0, 1, 0)).unbind(1)
        deter = obs.new_zeros(batch, agents, config.deter_dim)
        latent = obs.new_zeros(batch, agents, config.latent_dim)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(states):
            deter, latent, logits = self.absorb(
                deter, latent, led_here[t], evidence[t], has_past[t], uniform[t], dropout_generator
            )
            steps.append((deter, latent, logits))
        deters, latents, logits = (torch.stack(tensors, dim=1) for tensors in zip(*steps, strict=True))
        return Filtered(deters, latents, self.cell.log_probs(logits))

    def evidence(self, obs: Tensor) -> Tensor:
        """What observations [*,N,O] in the environment's units say to the posterior, [*,N,hidden]."""
        return self.cell.posterior_obs(self.heads.encode(self._units[0].layout.normalize(obs)))

    def absorb(
        self,
        deter: Tensor,
        latent: Tensor,
        action: Tensor,
        evidence: Tensor,
        has_past: Tensor,
        uniform: Tensor,
        dropout_generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One real step: (deter [B,N,D], latent [B,N,Z], the posterior's logits [B,N,G,C]) after it.

        Rows forget state and action where `has_past` [B] is 0 and not 1. `uniform` [B,N,G] draws the latents.
        """
        keep = has_past[:, None, None]
        deter = self.cell.transition(deter * keep, latent * keep, action * keep, dropout_generator)
        logits = self.cell.posterior(deter, evidence)
        return deter, self.cell.draw(logits, uniform), logits

    def outcome_features(self, latent: Tensor, next_deter: Tensor, next_latent: Tensor) -> Tensor:
        """What reward and continuation are read from, [*,N,F]: the latent before or behind the step, as configured."""
        return join(next_deter, latent if self.config.outcome_from == "transition" else next_latent)

    def _state_error(self, features: Tensor, state: Tensor) -> Tensor:
        """Smooth-L1 error [B,T+1] of the decoded global state, summed over its dimensions."""
        if not self.config.loss.state_shapes_latents:
            features = features.detach()
        target = self._units[0].state.normalize(state)
        return functional.smooth_l1_loss(self.heads.decode_state(features), target, reduction="none").sum(dim=-1)

    def _outcome_losses(self, filtered: Filtered, features: Tensor, segment: Segment) -> dict[str, Tensor]:
        """Smooth-L1 loss of the normalised reward, and cross-entropy of the continuation."""
        read = features[:, 1:]
        if self.config.outcome_from == "transition":
            read = self.outcome_features(filtered.latent[:, :-1], filtered.deter[:, 1:], filtered.latent[:, 1:])
        reward, logit = self.heads.outcome(read)
        target = self._units[0].normalize_reward(segment.reward)
        continues = (~segment.terminated).to(logit.dtype)
        end_error = functional.binary_cross_entropy_with_logits(logit, continues, reduction="none")
        return {
            "reward": masked_mean(functional.smooth_l1_loss(reward, target, reduction="none"), segment.valid),
            "continuation": masked_mean(end_error, segment.valid),
        }

    def _action_loss(self, hidden: Tensor, segment: Segment) -> Tensor:
        """Half the squared error of the action that led to each state, summed over an agent's actions.

        MAMBA's code has discrete actions and takes their cross-entropy: the same likelihood for a unit normal law.
        """
        assert self.heads.action is not None
        error = 0.5 * (self.heads.action(hidden[:, 1:]) - segment.action).square() * self.action_mask
        return masked_mean(error.sum(dim=-1).mean(dim=-1), segment.valid)
