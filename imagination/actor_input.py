"""What the actors are fed with: what an agent observes, the global state, both, or what all agents observe.

While a policy learns in imagination the state is the imagined one and costs nothing; at execution it is the true one or
one that a `StateInference` inferred. Knows no world model and no way of inferring.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from worldmodel.config import ConfigError
from worldmodel.normalize import STD_FLOOR, RunningNormalizer, absorb
from worldmodel.types import AgentView, EnvSpec, Trajectory

ActorInputKind = Literal["obs", "state", "obs+state", "joint"]


class ActorInput(nn.Module):
    """Turns what a model shows (`AgentView`) into the actors' input [B,N,F].

    `obs`: the model's view of an agent, as it is. `state`: the global state, standardised by the statistics of real
    states, and the one-hot agent id that a shared network needs. `obs+state`: the view, then these. `joint`: the views
    of all agents side by side, and the agent id: agents that tell each other what they see.
    """

    agent_id: Tensor

    def __init__(self, kind: ActorInputKind, spec: EnvSpec, view_dim: int) -> None:
        """Fit the sizes of `spec` and of a view of `view_dim` numbers an agent."""
        super().__init__()
        self.kind = kind
        self.uses_state = kind in ("state", "obs+state")
        num_agents = spec.num_agents
        self.dim = {
            "obs": view_dim,
            "state": spec.state_dim + num_agents,
            "obs+state": view_dim + spec.state_dim + num_agents,
            "joint": num_agents * view_dim + num_agents,
        }[kind]
        self.state_norm = RunningNormalizer(spec.state_dim, std_floor=STD_FLOOR) if self.uses_state else None
        self.register_buffer("agent_id", torch.eye(num_agents), persistent=False)

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb real states. Mutates the buffers."""
        absorb(trajectory, state=self.state_norm)

    def forward(self, view: AgentView) -> Tensor:
        """The input for what a model shows now; the same state for every agent."""
        return self.assemble(view.actor, view.state)

    def assemble(self, view: Tensor, state: Tensor | None) -> Tensor:
        """The input from the agents' views [...,N,F] and the state: [...,S] for all agents, or [...,N,S] by agent.

        Raises:
            ConfigError: when the state is asked for and the world model has none.
        """
        if self.kind == "obs":
            return view
        agent_id = self.agent_id.expand(*view.shape[:-2], -1, -1)
        if self.kind == "joint":
            joint = view.flatten(-2)[..., None, :].expand(*view.shape[:-1], -1)
            return torch.cat([joint, agent_id], dim=-1)
        if state is None or self.state_norm is None:
            raise ConfigError(
                f"policy.policy.input = {self.kind!r}: this world model has no global state; expected obs or joint"
            )
        own = self.state_norm.normalize(state)
        if own.ndim < view.ndim:
            own = own[..., None, :].expand(*view.shape[:-1], -1)
        parts = [own, agent_id] if self.kind == "state" else [view, own, agent_id]
        return torch.cat(parts, dim=-1)
