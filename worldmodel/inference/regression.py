"""The two learned baselines of GlobeDiff's Table 4: a conditional VAE, and a regression that knows one answer only."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from worldmodel.config import Config, OptimConfig
from worldmodel.inference.auxiliary import AuxiliaryConfig
from worldmodel.inference.latent import LatentNetwork, kl_divergence, unit_noise
from worldmodel.inference.learned import LearnedInference, build_inference
from worldmodel.networks import mlp
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class VaeConfig(Config):
    """A conditional VAE (Kingma and Welling): prior p(z | x), posterior q(z | x, s), decoder x, z -> s."""

    auxiliary: AuxiliaryConfig
    """What a state is inferred from."""
    latent_dim: int
    """Z (Table 4: 256)."""
    hidden_dim: int
    """Width of every network (Table 4: 1024)."""
    num_layers: int
    """Hidden layers of every network; the paper does not say."""
    kl_weight: float
    """Of the KL, summed over z, against the squared error summed over the state's dimensions."""
    optim: OptimConfig
    """Of all networks together."""

    def validate(self) -> None:
        """Check ranges."""
        for name in ("latent_dim", "hidden_dim", "num_layers"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.kl_weight >= 0, "kl_weight", "at least 0")

    def build(self, spec: EnvSpec) -> LearnedInference:
        """The inferencer for an environment."""
        return build_inference(spec, self.auxiliary, lambda x, s: ConditionalVae(self, x, s), self.optim)


class ConditionalVae(nn.Module):
    """Keeps `StateGenerator`; a sample is the decoder's mean for a z from the prior."""

    def __init__(self, config: VaeConfig, x_dim: int, state_dim: int) -> None:
        super().__init__()
        self.config = config
        z, hidden, layers = config.latent_dim, config.hidden_dim, config.num_layers
        self.prior = LatentNetwork(x_dim, z, hidden, layers)
        self.posterior = LatentNetwork(x_dim + state_dim, z, hidden, layers)
        self.decoder = mlp([x_dim + z, *[hidden] * layers, state_dim])

    def loss(self, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error summed over dimensions and the weighted KL, divided by S as GlobeDiff's are."""
        q = self.posterior(torch.cat([x, s], dim=1))
        kl = kl_divergence(q, self.prior(x)).mean()
        z = q.sample(unit_noise(q.mean.shape, s, generator))
        error = (self._decode(x, z) - s).square().mean()
        loss = error + self.config.kl_weight / s.shape[1] * kl
        return loss, {"inference_error": error.detach(), "inference_kl": kl.detach()}

    def latent_report(self, x: Tensor, s: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """By row [B]: the KL in nats, and the squared error with z from the posterior and from the prior."""
        q, p = self.posterior(torch.cat([x, s], dim=1)), self.prior(x)
        unit = unit_noise(q.mean.shape, s, generator)
        errors = [(self._decode(x, law.sample(unit)) - s).square().mean(dim=1) for law in (q, p)]
        return {"kl": kl_divergence(q, p), "error_posterior": errors[0], "error_prior": errors[1]}

    def draw_noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """[rows, Z]."""
        return unit_noise((rows, self.config.latent_dim), next(self.parameters()), generator)

    def sample(self, x: Tensor, noise: Tensor) -> Tensor:
        """One state [B,S] for each row of x."""
        return self._decode(x, self.prior(x).sample(noise))

    def _decode(self, x: Tensor, z: Tensor) -> Tensor:
        return self.decoder(torch.cat([x, z], dim=1))


@dataclasses.dataclass(frozen=True)
class MlpConfig(Config):
    """A regression: the mean of the plausible states, however far from each of them."""

    auxiliary: AuxiliaryConfig
    """What a state is inferred from."""
    hidden_dim: int
    """Table 4: 1024."""
    num_layers: int
    """Hidden layers (Table 4: 4)."""
    optim: OptimConfig
    """Of the network."""

    def validate(self) -> None:
        """Check ranges."""
        for name in ("hidden_dim", "num_layers"):
            self.require(getattr(self, name) >= 1, name, "at least 1")

    def build(self, spec: EnvSpec) -> LearnedInference:
        """The inferencer for an environment."""
        return build_inference(spec, self.auxiliary, lambda x, s: Regression(self, x, s), self.optim)


class Regression(nn.Module):
    """Keeps `StateGenerator`; every sample is the same."""

    def __init__(self, config: MlpConfig, x_dim: int, state_dim: int) -> None:
        super().__init__()
        self.net = mlp([x_dim, *[config.hidden_dim] * config.num_layers, state_dim])

    def loss(self, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error, averaged over dimensions."""
        error = (self.net(x) - s).square().mean()
        return error, {"inference_error": error.detach()}

    def draw_noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """[rows, 0]: there is no chance in it."""
        return next(self.parameters()).new_zeros(rows, 0)

    def sample(self, x: Tensor, noise: Tensor) -> Tensor:
        """The regression's answer [B,S]."""
        return self.net(x)
