"""What a state is inferred from, as one vector: an agent's own last observations (Eq. 1) or those of all (Eq. 2).

GlobeDiff, "State Diffusion Process for Partial Observability in Multi-Agent Systems", section 3. Observations are
standardised one statistic an agent and entry; whoever infers from its own ones is told apart by a one-hot agent id.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.config import Config
from worldmodel.normalize import RunningNormalizer, absorb
from worldmodel.protocol import Auxiliary
from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec, Trajectory


@dataclasses.dataclass(frozen=True)
class AuxiliaryConfig(Config):
    """The auxiliary observation x, and how observations and states are standardised."""

    source: Auxiliary
    """`own`: an agent's own observations (Eq. 1). `joint`: everybody's (Eq. 2), which agents must communicate."""
    history_steps: int
    """m: observations before the present one (Appendix D: 3 with `own`; Eq. 2 has none)."""
    std_floor: float
    """Smallest standard deviation to divide by, in the environment's units."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.history_steps >= 0, "history_steps", "at least 0")
        self.require(self.std_floor > 0, "std_floor", "a number above 0")


class AuxiliaryObservation(nn.Module):
    """Histories to vectors: [B,m+1,N,O] -> [B,X]."""

    def __init__(self, config: AuxiliaryConfig, spec: EnvSpec) -> None:
        """Fit the sizes of `spec`."""
        super().__init__()
        self.config = config
        self.spec = spec
        agents = 1 if config.source == "own" else spec.num_agents
        self.dim = (config.history_steps + 1) * agents * spec.obs_dim
        if config.source == "own":
            self.dim += spec.num_agents
        self.norm = RunningNormalizer(spec.num_agents * spec.obs_dim, std_floor=config.std_floor)

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb real observations. Mutates the buffers."""
        absorb(trajectory, obs=self.norm)

    def check(self, history: Tensor, agent: Tensor | None) -> None:
        """Refuse what cannot be inferred from.

        Raises:
            ValueError: for another shape, an unknown agent, or none where `source` is `own`.
            FloatingPointError: naming the first observation that is not finite.
        """
        spec, steps = self.spec, self.config.history_steps
        sizes = check_shape("history", history, "B T N O", T=steps + 1, N=spec.num_agents, O=spec.obs_dim)
        if agent is None and self.config.source == "own":
            raise ValueError("agent is None: whoever infers from its own observations must be named, [B] from 0")
        if agent is not None:
            check_shape("agent", agent, "B", B=sizes["B"])
            unknown = agent[(agent < 0) | (agent >= spec.num_agents)]
            if unknown.numel():
                raise ValueError(f"agent {int(unknown[0])}: expected one of 0..{spec.num_agents - 1}")
        if not bool(torch.isfinite(history).all()):
            row, step, who, entry = (int(i) for i in torch.nonzero(~torch.isfinite(history))[0])
            raise FloatingPointError(
                f"history[{row}, {step}, {who}, {entry}] is {history[row, step, who, entry].item()}:"
                f" entry {entry} of what agent {who} observed {steps - step} steps ago"
            )

    def forward(self, history: Tensor, agent: Tensor | None) -> Tensor:
        """x [B,X] from `history` [B,m+1,N,O]; `agent` [B] says whose it is where `source` is `own`."""
        seen = self.norm.normalize(history.flatten(2)).unflatten(2, history.shape[2:])
        if self.config.source == "joint" or agent is None:
            return seen.flatten(1)
        index = agent[:, None, None, None].expand(-1, seen.shape[1], 1, seen.shape[3])
        own = seen.gather(2, index).flatten(1)
        return torch.cat([own, functional.one_hot(agent, self.spec.num_agents).to(own)], dim=1)
