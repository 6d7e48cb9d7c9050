"""The exact law of the state given what was observed, where an environment's configuration knows it (`state_law`).

It is the yardstick of every inferencer: its own draws are what a perfect one would give.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodel.inference.gaussian_mixture import GaussianMixture
from worldmodel.protocol import Auxiliary


class StateLaw:
    """Keeps `StateInference`: draws from the law itself."""

    auxiliary: Auxiliary = "joint"
    history_steps: int = 0

    def __init__(self, config: Any) -> None:
        """Take an environment's configuration with `state_law(history)`."""
        self.config = config

    @classmethod
    def of(cls, config: Any) -> StateLaw | None:
        """The law that `config` knows, None where it knows none."""
        return cls(config) if hasattr(config, "state_law") else None

    def mixture(self, history: Tensor) -> GaussianMixture:
        """The law for each of `history` [B,m+1,N,O]: means [J,B,S]."""
        law = self.config.state_law(history.cpu().numpy())
        return GaussianMixture.isotropic(torch.from_numpy(law.weight), torch.from_numpy(law.mean), law.std)

    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """Exact draws [M,B,S]; `generator` on the CPU."""
        return self.mixture(history).sample(num_samples, generator).float()
