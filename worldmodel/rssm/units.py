"""Between the environment's units and the networks': running statistics, padding and agent ids in one place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.normalize import RunningNormalizer
from worldmodel.types import EnvSpec, Trajectory


class Units(nn.Module):
    """Normalises states [*,S], observations [*,N,O] and rewards [*] by running statistics, and back.

    Agent ids do not vary for an agent, so normalising would erase them: they pass as they are. Only an agent's own
    numbers, [*,N,P] with P the largest agent's, are ever predicted; padding and ids are known.

    Args:
        spec: gives the layout of the observations.
        std_floor: smallest standard deviation to divide by.
        freeze_after: rows after which the statistics stay as they are; None: never.
    """

    own: Tensor
    """[N,P] bool: which of an agent's own numbers are real."""
    is_agent_id: Tensor
    """[N,O] bool."""
    agent_id: Tensor
    """[N, N or 0] what the environment appends."""

    def __init__(self, spec: EnvSpec, std_floor: float, freeze_after: int | None) -> None:
        super().__init__()
        self.state = RunningNormalizer(spec.state_dim, std_floor=std_floor, freeze_after=freeze_after)
        # One statistic an agent and entry: the same entry may mean different joints to different agents.
        joint_dim = spec.num_agents * spec.obs_dim
        self.obs = RunningNormalizer(joint_dim, std_floor=std_floor, freeze_after=freeze_after)
        self.reward = RunningNormalizer(1, std_floor=std_floor, freeze_after=freeze_after)
        own_dim = max(spec.obs_sizes)
        num_ids = spec.obs_dim - own_dim
        is_id = torch.arange(spec.obs_dim) >= own_dim
        self.register_buffer("own", spec.obs_mask()[:, :own_dim].clone(), persistent=False)
        self.register_buffer("is_agent_id", is_id.expand(spec.num_agents, -1).clone(), persistent=False)
        self.register_buffer("agent_id", torch.eye(spec.num_agents)[:, :num_ids].clone(), persistent=False)

    def update(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's states, observations and rewards. Mutates the statistics."""
        first = 0 if trajectory.is_start else 1  # a stretch that goes on repeats the last state of the one before
        device = self.state.mean.device
        self.state.update(trajectory.state[first:].to(device))
        self.obs.update(trajectory.obs[first:].flatten(1).to(device))
        self.reward.update(trajectory.reward[:, None].to(device))

    def normalize_obs(self, obs: Tensor) -> Tensor:
        """Observations [*,N,O] with mean 0 and std 1 in each entry but the ids."""
        normal = self.obs.normalize(obs.flatten(-2)).unflatten(-1, obs.shape[-2:])
        return torch.where(self.is_agent_id, obs, normal)

    def own_part(self, obs: Tensor) -> Tensor:
        """The agents' own numbers [*,N,P] of observations [*,N,O]."""
        return obs[..., : self.own.shape[1]]

    def assemble_obs(self, own: Tensor) -> Tensor:
        """Observations [*,N,O] in the environment's units from predicted normalised numbers [*,N,P].

        Padding is exactly zero and ids are exactly what the environment appends.
        """
        ids = self.agent_id.expand(*own.shape[:-1], -1)
        obs = torch.cat([own, ids], dim=-1)
        obs = self.obs.denormalize(obs.flatten(-2)).unflatten(-1, obs.shape[-2:])
        own_real = torch.where(self.own, self.own_part(obs), torch.zeros_like(own))
        return torch.cat([own_real, ids], dim=-1)

    def normalize_reward(self, reward: Tensor) -> Tensor:
        """Rewards [*] with mean 0 and std 1."""
        return self.reward.normalize(reward[..., None])[..., 0]

    def env_reward(self, reward: Tensor) -> Tensor:
        """Normalised rewards [*] in the environment's units."""
        return self.reward.denormalize(reward[..., None])[..., 0]
