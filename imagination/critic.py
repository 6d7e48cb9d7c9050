"""The centralised critic, used in training only: one value for the team, learned in normalised units."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.config import Config
from worldmodel.networks import mlp, orthogonal_init

_SMALLEST_TOTAL = 1e-12
"""Of the weights of a batch: rows that all count for nothing are divided by this."""


@dataclasses.dataclass(frozen=True)
class CriticConfig(Config):
    """The critic's network, its units and its loss."""

    hidden_dims: tuple[int, ...]
    """Width of each hidden layer."""
    activation: str
    """Of the hidden layers; a key of `worldmodel.networks.ACTIVATIONS`."""
    input_layer_norm: bool
    """LayerNorm on the view before the first layer."""
    value_normalization: Literal["running", "none"]
    """`running`: the network predicts values standardised by the running statistics of its targets."""
    value_norm_decay: float
    """`running`: share of the old statistics that an update keeps."""
    value_norm_var_floor: float
    """`running`: smallest variance of the targets."""
    loss: Literal["huber", "mse"]
    """Of the difference to the target, in the network's units."""
    huber_delta: float
    """`huber`: differences beyond this count linearly."""
    value_clip: float | None
    """How far, in the network's units, a value may usefully move from what it was at the rollout; null: anywhere."""

    def validate(self) -> None:
        """Refuse empty networks and impossible statistics."""
        self.require(bool(self.hidden_dims) and min(self.hidden_dims) >= 1, "hidden_dims", "sizes of at least 1")
        self.require(0 <= self.value_norm_decay < 1, "value_norm_decay", "a number in [0, 1)")
        self.require(self.value_norm_var_floor > 0, "value_norm_var_floor", "a number above 0")
        self.require(self.huber_delta > 0, "huber_delta", "a number above 0")
        self.require(self.value_clip is None or self.value_clip > 0, "value_clip", "a number above 0, or null")

    def build(self, critic_dim: int) -> Critic:
        """A fresh critic of C = `critic_dim` numbers."""
        return Critic(self, critic_dim)


class ValueNormalizer(nn.Module):
    """Debiased running mean and variance of value targets (MAPPO's ValueNorm, PopArt without rescaling the network).

    The identity until the first update; after it, exactly that batch's statistics.
    """

    mean: Tensor
    mean_square: Tensor
    weight: Tensor

    def __init__(self, decay: float, var_floor: float) -> None:
        """Start without data."""
        super().__init__()
        self.decay = decay
        self.var_floor = var_floor
        # Float64: a variance is a small difference of large squares, and one update weighs as little as 1e-5.
        for name in ("mean", "mean_square", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, target: Tensor, weight: Tensor) -> None:
        """Absorb `target` [R], rows weighted by `weight` [R], of which all may be 0. Mutates the buffers."""
        target, weight = target.double(), weight.double()
        total = weight.sum()
        share = weight / total.clamp(min=_SMALLEST_TOTAL)
        rate = (1 - self.decay) * (total > 0)
        self.mean.lerp_((share * target).sum(), rate)
        self.mean_square.lerp_((share * target.square()).sum(), rate)
        self.weight.lerp_(torch.ones_like(self.weight), rate)

    def normalize(self, value: Tensor) -> Tensor:
        """Units of reward -> the network's."""
        mean, std = self._statistics()
        return (value - mean) / std

    def denormalize(self, value: Tensor) -> Tensor:
        """The network's units -> those of reward."""
        mean, std = self._statistics()
        return value * std + mean

    def _statistics(self) -> tuple[Tensor, Tensor]:
        started = self.weight > 0
        weight = torch.where(started, self.weight, 1.0)
        mean = self.mean / weight
        var = (self.mean_square / weight - mean.square()).clamp(min=self.var_floor)
        return mean.float(), torch.where(started, var, 1.0).sqrt().float()


class Critic(nn.Module):
    """[..., C] -> the team's value, [...]. Layers as the actor's; the last has gain 1."""

    def __init__(self, config: CriticConfig, critic_dim: int) -> None:
        """Fresh weights from torch's default generator."""
        super().__init__()
        self.config = config
        self.trunk = mlp(
            [critic_dim, *config.hidden_dims], activation=config.activation, layer_norm=True, activate_last=True
        )
        if config.input_layer_norm:
            self.trunk.insert(0, nn.LayerNorm(critic_dim))
        self.head = nn.Linear(config.hidden_dims[-1], 1)
        orthogonal_init(self.trunk)
        orthogonal_init(self.head, gain=1.0)
        self.normalizer = (
            ValueNormalizer(config.value_norm_decay, config.value_norm_var_floor)
            if config.value_normalization == "running"
            else None
        )

    def forward(self, critic_view: Tensor) -> Tensor:
        """The value of `critic_view` [...,C] in the network's own units, [...]."""
        return self.head(self.trunk(critic_view)).squeeze(-1).float()

    def denormalize(self, output: Tensor) -> Tensor:
        """What `forward` gave, in units of reward."""
        return output if self.normalizer is None else self.normalizer.denormalize(output)

    def loss(self, critic_view: Tensor, target: Tensor, old_output: Tensor, weight: Tensor) -> Tensor:
        """The loss on R rows; absorbs `target` into the value statistics first (as MAPPO). Mutates the normaliser.

        Args:
            critic_view: [R,C].
            target: [R] lambda-returns, in units of reward.
            old_output: [R] what `forward` gave when the rollout was made.
            weight: [R] of each row, with mean 1 over the rollout.

        Returns:
            A scalar. With `value_clip`, the larger of the losses of the value and of the value clipped to the
            neighbourhood of the old one (PPO's value clipping).
        """
        if self.normalizer is not None:
            self.normalizer.update(target, weight)
            target = self.normalizer.normalize(target)
        output = self(critic_view)
        loss = self._distance(output, target)
        if self.config.value_clip is not None:
            near = old_output + (output - old_output).clamp(-self.config.value_clip, self.config.value_clip)
            loss = torch.maximum(loss, self._distance(near, target))
        return (weight * loss).mean()

    def _distance(self, output: Tensor, target: Tensor) -> Tensor:
        if self.config.loss == "huber":
            return functional.huber_loss(output, target, reduction="none", delta=self.config.huber_delta)
        return functional.mse_loss(output, target, reduction="none")
