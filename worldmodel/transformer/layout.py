"""Observations as the networks see them: each agent's own numbers, standardised, without padding's and ids' noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel.normalize import RunningNormalizer
from worldmodel.types import EnvSpec


class ObservationLayout(nn.Module):
    """Between observations [*,N,O] in the environment's units and standardised own entries z [*,N,P].

    P is the size of the largest agent's own observation; z is 0 where an agent has fewer. Agent ids that the
    environment appends are known constants: they are left out of z and written back exactly.

    Args:
        spec: gives the layout of the observations.
        obs_norm: running statistics of the joint observation, flattened to [N*O]: one an agent and entry, as the same
            entry may mean different joints to different agents.
    """

    mask: Tensor
    constant: Tensor
    joint_index: Tensor

    def __init__(self, spec: EnvSpec, obs_norm: RunningNormalizer) -> None:
        super().__init__()
        self.num_agents = spec.num_agents
        self.size = max(spec.obs_sizes)
        self.joint_size = sum(spec.obs_sizes)
        # In a tuple, so that it is not registered here: the world model owns, moves and saves it.
        self._norm = (obs_norm,)
        own = spec.obs_mask()[:, : self.size]
        constant = torch.zeros(spec.num_agents, spec.obs_dim)
        if spec.appends_agent_id:
            constant[:, self.size :] = torch.eye(spec.num_agents)
        self.register_buffer("mask", own, persistent=False)
        self.register_buffer("constant", constant, persistent=False)
        self.register_buffer("joint_index", own.flatten().nonzero()[:, 0], persistent=False)

    def normalize(self, obs: Tensor) -> Tensor:
        """Standardised own entries z [*,N,P] of observations [*,N,O]."""
        z = self._norm[0].normalize(obs.flatten(-2)).unflatten(-1, obs.shape[-2:])
        return z[..., : self.size] * self.mask

    def denormalize(self, z: Tensor) -> Tensor:
        """Observations [*,N,O] in the environment's units; padding is exactly 0 and agent ids are exact."""
        num_constant = self.constant.shape[1] - self.size
        padded = functional.pad(z, (0, num_constant)).flatten(-2)
        obs = self._norm[0].denormalize(padded).unflatten(-1, self.constant.shape)
        return torch.where(functional.pad(self.mask, (0, num_constant)), obs, self.constant)

    def standardized(self, z: Tensor) -> Tensor:
        """Observations [*,N,O] with own entries as they are in z, padding 0 and agent ids exact."""
        num_constant = self.constant.shape[1] - self.size
        return functional.pad(z, (0, num_constant)) + self.constant

    def joint(self, z: Tensor) -> Tensor:
        """The real entries of all agents side by side, [*, sum of own sizes]."""
        return z.flatten(-2).index_select(-1, self.joint_index)
