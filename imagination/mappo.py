"""MAPPO on imagined rollouts: decentralised actors, one centralised critic, an advantage that the team shares.

Appendix C of the paper. Nothing is differentiated through the world model: an update reads a finished rollout.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from imagination.critic import Critic, CriticConfig
from imagination.policy import Policy, PolicyConfig
from imagination.returns import lambda_returns, survival_weights
from imagination.rollout_metrics import describe_rollout, mean_of_known
from imagination.uncertainty import UncertaintyConfig
from worldmodel.config import Config
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, ImaginedRollout, TensorStruct

ADAM_EPS = 1e-5
ADVANTAGE_EPS = 1e-4
"""Added to the std that advantages are divided by. Both as MARIE and the authors' published code."""
SMALLEST_WEIGHT = 1e-6
"""Of the mean weight: where nothing is known or alive, nothing is learned, and nothing divided by zero."""


@dataclasses.dataclass(frozen=True)
class MappoConfig(Config):
    """The update of actor and critic from one imagined rollout."""

    discount: float
    """Per env step."""
    lambda_: float
    """Of the lambda-return."""
    clip: float
    """How far from 1 the ratio of new to old action probability is rewarded."""
    entropy_coefficient: float
    """Weight of the policy's entropy, summed over an agent's action dimensions."""
    epochs: int
    """Passes over the rollout."""
    minibatches: int
    """Optimiser steps in a pass, on equal shuffled parts; rows that do not divide evenly sit out one pass."""
    actor_learning_rate: float
    """Adam's, for the policy."""
    critic_learning_rate: float
    """Adam's, for the critic."""
    grad_clip: float
    """Largest global gradient norm, of the actor and of the critic each."""
    survival_weighting: bool
    """Weight every imagined step by the probability that the episode has not terminated before it."""

    def validate(self) -> None:
        """Refuse values that cannot train."""
        self.require(0 <= self.discount <= 1, "discount", "a number in [0, 1]")
        self.require(0 <= self.lambda_ <= 1, "lambda_", "a number in [0, 1]")
        for name in ("clip", "actor_learning_rate", "critic_learning_rate", "grad_clip"):
            self.require(getattr(self, name) > 0, name, "a number above 0")
        self.require(self.entropy_coefficient >= 0, "entropy_coefficient", "a number of at least 0")
        for name in ("epochs", "minibatches"):
            self.require(getattr(self, name) >= 1, name, "at least 1")


@dataclasses.dataclass(frozen=True)
class BehaviourConfig(Config):
    """How behaviour is learned inside a world model: the networks, the update, the rollouts."""

    policy: PolicyConfig
    """The actors' network."""
    critic: CriticConfig
    """The critic's network and loss."""
    mappo: MappoConfig
    """The update of both."""
    num_rollouts: int
    """B: rollouts imagined for one update."""
    horizon: int
    """H: imagined steps in each."""
    uncertainty: UncertaintyConfig | None = None
    """What imagination does where the model is unsure; None: nothing, as in runs from before there was a choice."""

    def validate(self) -> None:
        """Refuse an empty rollout."""
        for name in ("num_rollouts", "horizon"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        rows = self.num_rollouts * self.horizon
        self.require(self.mappo.minibatches <= rows, "mappo", f"at most {rows} minibatches: num_rollouts * horizon")

    def build(self, spec: EnvSpec, model: WorldModel[Any], device: torch.device | str = "cpu") -> Mappo:
        """A fresh policy and critic on `device` that fit the views of `model`, with their optimisers.

        Raises:
            ConfigError: when `uncertainty` relies on what the model does not report.
        """
        if self.uncertainty is not None:
            self.uncertainty.require_fit(model)
        policy = self.policy.build(spec, model.actor_dim).to(device)
        return Mappo(self.mappo, policy, self.critic.build(model.critic_dim).to(device))


@dataclasses.dataclass(frozen=True)
class _Batch(TensorStruct):
    """What the losses need, one row for each imagined step: R = B*H."""

    actor_view: Tensor
    critic_view: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor
    old_output: Tensor
    weight: Tensor
    known: Tensor | None


class Mappo:
    """Policy, critic and their optimisers, improved rollout by rollout."""

    def __init__(self, config: MappoConfig, policy: Policy, critic: Critic) -> None:
        """Take `policy` and `critic` in hand: `update` changes them."""
        self.config = config
        self.policy = policy
        self.critic = critic
        self._actor_optimizer = _adam(policy, config.actor_learning_rate)
        self._critic_optimizer = _adam(critic, config.critic_learning_rate)

    def update(self, rollout: ImaginedRollout, generator: torch.Generator) -> dict[str, Tensor]:
        """Improve policy and critic on `rollout`; minibatches are shuffled by `generator`.

        Returns:
            Detached scalars by name, on the rollout's device.

        Raises:
            FloatingPointError: when the rollout or a gradient is not finite. Policy, critic and optimisers are then
                what they were before the call.
        """
        rollout.require_finite("imagined rollout")
        # Looking at each gradient would stop the device at every step. It is looked at once, after the last step,
        # and this copy brings back what a bad one has spoilt.
        before = copy.deepcopy(self.state_dict())
        batch, metrics = self._prepare(rollout)
        steps = [self._step(part) for part in self._minibatches(batch, generator)]
        means = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
        norms = ("policy/grad_norm", "critic/grad_norm")
        if not bool(torch.isfinite(torch.stack([means[name] for name in norms])).all()):
            self.load_state_dict(before)
            bad = next(name for name in norms if not bool(torch.isfinite(means[name])))
            raise FloatingPointError(f"MAPPO update: {bad} is {means[bad].item()}; policy and critic are unchanged")
        with torch.no_grad():
            means["policy/std"] = self.policy.std(rollout.actor_view[:, 0])
        return metrics | means

    def state_dict(self) -> dict[str, Any]:
        """Weights, value statistics and both optimisers; as usual in torch not copies, but the tensors in use."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, part in self._parts().items():
            # A copy, because an optimiser goes on working in the very tensors that it loads.
            part.load_state_dict(copy.deepcopy(state_dict[name]))

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "policy": self.policy,
            "critic": self.critic,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
        }

    @torch.no_grad()
    def _prepare(self, rollout: ImaginedRollout) -> tuple[_Batch, dict[str, Tensor]]:
        """Targets, advantages and weights of every imagined step, before any weight moves."""
        config = self.config
        output = self.critic(rollout.critic_view)  # [B, H+1]
        value = self.critic.denormalize(output)
        target = lambda_returns(
            rollout.reward,
            rollout.continuation,
            value[:, 1:],
            discount=config.discount,
            lambda_=config.lambda_,
            known=rollout.known,
        )
        weight = survival_weights(rollout.continuation) if config.survival_weighting else torch.ones_like(target)
        if rollout.known is not None:
            weight = weight * rollout.known
        weight = weight / weight.mean().clamp(min=SMALLEST_WEIGHT)
        advantage = target - value[:, :-1]
        centred = advantage - (weight * advantage).mean()
        std = (weight * centred.square()).mean().sqrt()
        batch = _Batch(
            actor_view=rollout.actor_view[:, :-1],
            critic_view=rollout.critic_view[:, :-1],
            action=rollout.action,
            log_prob=rollout.log_prob,
            advantage=centred / (std + ADVANTAGE_EPS),
            target=target,
            old_output=output[:, :-1],
            weight=weight,
            known=rollout.known,
        )
        metrics = describe_rollout(rollout, value, target) | {"imagination/advantage_std": std}
        return batch.map(lambda tensor: tensor.flatten(0, 1)), metrics  # [B, H, ...] -> [B*H, ...]

    def _minibatches(self, batch: _Batch, generator: torch.Generator) -> Iterator[_Batch]:
        """Equal parts of `batch` in random order, once for each epoch; the whole of it where there is one part."""
        rows = batch.target.shape[0]
        size = rows // self.config.minibatches
        for _ in range(self.config.epochs):
            if self.config.minibatches == 1:
                yield batch
                continue
            order = torch.randperm(rows, generator=generator, device=batch.target.device)
            for part in range(self.config.minibatches):
                yield batch[order[part * size : (part + 1) * size]]

    def _step(self, batch: _Batch) -> dict[str, Tensor]:
        """One step of the actor, then one of the critic."""
        actor_loss, metrics = self._actor_loss(batch)
        metrics["policy/loss"] = actor_loss.detach()
        metrics["policy/grad_norm"] = self._descend(actor_loss, self.policy, self._actor_optimizer)
        self.policy.constrain()
        critic_loss = self.critic.loss(batch.critic_view, batch.target, batch.old_output, batch.weight)
        metrics["critic/loss"] = critic_loss.detach()
        metrics["critic/grad_norm"] = self._descend(critic_loss, self.critic, self._critic_optimizer)
        return metrics

    def _descend(self, loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        """Move `module` against the clipped gradient; return the gradient's norm before clipping."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.config.grad_clip)
        optimizer.step()
        return norm.detach()

    def _actor_loss(self, batch: _Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's clipped objective and the entropy bonus, averaged over rows and agents (Eq. 21 of appendix C).

        The ratio is the product over an agent's action dimensions; every agent of a row has the same advantage.
        """
        log_prob, entropy = self.policy.evaluate(batch.actor_view, batch.action)  # [R, N]
        log_ratio = log_prob - batch.log_prob
        if batch.known is not None:  # elsewhere nobody acted, and a ratio may be infinite
            log_ratio = torch.where(batch.known[:, None], log_ratio, 0.0)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        advantage, weight = batch.advantage[:, None], batch.weight[:, None]
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        loss = -(weight * (gain + self.config.entropy_coefficient * entropy)).mean()
        with torch.no_grad():
            metrics = {
                "policy/entropy": mean_of_known(entropy, batch.known),
                "policy/clip_fraction": mean_of_known((ratio != clipped).float(), batch.known),
                # Schulman's low-variance estimate of the divergence of the old policy from the new.
                "policy/approx_kl": mean_of_known(ratio - 1 - log_ratio, batch.known),
            }
        return loss, metrics


def _adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    # Fused: one kernel for all parameters; at small batches that is a third of an update.
    return torch.optim.Adam(module.parameters(), learning_rate, eps=ADAM_EPS, fused=True)
