"""Between the environment's joint observations and what networks read and predict of them.

Only an agent's own numbers have to be learned: padding is exactly zero, and an appended agent id is known. They are
standardised here too, because that must leave padding and ids as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.normalize import RunningNormalizer
from worldmodel.types import EnvSpec


class ObservationLayout(nn.Module):
    """Translates between observations [*,N,O] and their own numbers: as rows [*,N,P], or packed [*,D].

    P is the size of the largest agent's own observation; rows are zero where an agent has fewer. D is the sum of all
    agents' sizes: their own numbers side by side, without padding.

    Args:
        spec: gives the layout of the observations.
        obs_norm: running statistics of the joint observation, flattened to [N*O]: one an agent and entry, as the same
            entry may mean different joints to different agents.

    Raises:
        ValueError: when `obs_norm` has another size.
    """

    is_own: Tensor
    """[N,O] bool: an agent's own numbers, neither padding nor an id."""
    is_agent_id: Tensor
    """[N,O] bool."""
    known: Tensor
    """[N,O] padding and ids as the environment gives them; zero elsewhere."""
    index: Tensor
    """[D] where in [N*O] the own numbers are."""

    def __init__(self, spec: EnvSpec, obs_norm: RunningNormalizer) -> None:
        super().__init__()
        joint_dim = spec.num_agents * spec.obs_dim
        if obs_norm.mean.numel() != joint_dim:
            raise ValueError(f"obs_norm holds {obs_norm.mean.numel()} entries, expected N*O = {joint_dim}")
        # In a tuple, so that it is not registered here: the world model owns, moves and saves it.
        self._norm = (obs_norm,)
        self.num_agents = spec.num_agents
        self.row_dim = max(spec.obs_sizes)
        self.packed_dim = sum(spec.obs_sizes)
        self._num_ids = spec.obs_dim - self.row_dim
        is_id = (torch.arange(spec.obs_dim) >= self.row_dim).repeat(spec.num_agents, 1)
        is_own = spec.own_obs_mask()
        self.register_buffer("is_own", is_own, persistent=False)
        self.register_buffer("is_agent_id", is_id, persistent=False)
        self.register_buffer("known", spec.known_obs(), persistent=False)
        self.register_buffer("index", is_own.flatten().nonzero()[:, 0], persistent=False)

    @property
    def row_mask(self) -> Tensor:
        """[N,P] bool: which entries of rows are real."""
        return self.is_own[:, : self.row_dim]

    def normalize(self, obs: Tensor) -> Tensor:
        """Observations [*,N,O] with mean 0 and std 1 in each entry; padding stays zero, and agent ids as they are.

        An agent's id does not vary, so normalising would erase it.
        """
        normal = self._norm[0].normalize(obs.flatten(-2)).unflatten(-1, obs.shape[-2:])
        return torch.where(self.is_agent_id, obs, normal)

    def denormalize(self, normal: Tensor) -> Tensor:
        """Observations [*,N,O] in the environment's units; padding and agent ids are exact, whatever `normal` says."""
        return self.complete(self._norm[0].denormalize(normal.flatten(-2)).unflatten(-1, normal.shape[-2:]))

    def complete(self, obs: Tensor) -> Tensor:
        """`obs` [*,N,O] with padding and agent ids as the environment gives them."""
        return torch.where(self.is_own, obs, self.known)

    def normalized_rows(self, obs: Tensor) -> Tensor:
        """The rows [*,N,P] of observations [*,N,O], with mean 0 and std 1 in each entry."""
        return self.normalize(obs)[..., : self.row_dim]

    def spread_rows(self, rows: Tensor) -> Tensor:
        """[*,N,P] -> [*,N,O], zeros in the place of agent ids."""
        return functional.pad(rows, (0, self._num_ids))

    def pack(self, obs: Tensor) -> Tensor:
        """[*,N,O] -> [*,D]."""
        return obs.flatten(-2).index_select(-1, self.index)

    def spread(self, packed: Tensor) -> Tensor:
        """[*,D] -> [*,N,O], zeros in all other places."""
        flat = packed.flatten(0, -2)
        spread = flat.new_zeros(flat.shape[0], self.is_own.numel()).index_copy(1, self.index, flat)
        return spread.unflatten(1, self.is_own.shape).unflatten(0, packed.shape[:-1])


class NormalizedObs(nn.Module):
    """`ObservationLayout.normalize` as a module that has the statistics it uses, so that it can be exported."""

    def __init__(self, layout: ObservationLayout, obs_norm: RunningNormalizer) -> None:
        """Share `layout` and its `obs_norm`."""
        super().__init__()
        self.layout = layout
        self.norm = obs_norm

    def forward(self, obs: Tensor) -> Tensor:
        """[B,N,O] -> [B,N,O]."""
        return self.layout.normalize(obs)
