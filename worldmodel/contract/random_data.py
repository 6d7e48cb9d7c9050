"""Made-up data that fits any `EnvSpec`: padding, agent ids and episode ends are where the contract says."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from worldmodel.types import EnvSpec, Segment, Trajectory, Transition


def random_action(spec: EnvSpec, batch: int, generator: torch.Generator) -> Tensor:
    """[B,N,A] uniform in [-1, 1], zeros where padded."""
    uniform = torch.rand(batch, spec.num_agents, spec.action_dim, generator=generator)
    return (2 * uniform - 1) * spec.action_mask()


def random_obs(spec: EnvSpec, batch: int, generator: torch.Generator) -> Tensor:
    """[B,N,O] normal numbers, zeros where padded, and the agents' ids where the environment appends them."""
    numbers = torch.randn(batch, spec.num_agents, spec.obs_dim, generator=generator)
    return torch.where(spec.own_obs_mask(), numbers, spec.known_obs())


def random_state(spec: EnvSpec, batch: int, generator: torch.Generator) -> Tensor:
    """[B,S] normal numbers of mean 1 and std 2."""
    return 1 + 2 * torch.randn(batch, spec.state_dim, generator=generator)


def random_trajectory(spec: EnvSpec, length: int, generator: torch.Generator) -> Trajectory:
    """A whole episode of `length` transitions that terminates."""
    last = torch.arange(length) == length - 1
    return Trajectory(
        obs=random_obs(spec, length + 1, generator),
        state=random_state(spec, length + 1, generator),
        action=random_action(spec, length, generator),
        reward=torch.randn(length, generator=generator),
        terminated=last,
        truncated=torch.zeros(length, dtype=torch.bool),
    )


def random_segment(
    spec: EnvSpec, batch: int, length: int, generator: torch.Generator, valid: Tensor | None = None
) -> Segment:
    """A training batch [B,T]: zeros wherever `valid` [B,T] (all, if not given) says that nothing happened."""
    valid = torch.ones(batch, length, dtype=torch.bool) if valid is None else valid
    states = batch * (length + 1)
    segment = Segment(
        obs=random_obs(spec, states, generator).unflatten(0, (batch, length + 1)),
        state=random_state(spec, states, generator).unflatten(0, (batch, length + 1)),
        action=random_action(spec, batch * length, generator).unflatten(0, (batch, length)) * valid[:, :, None, None],
        reward=torch.randn(batch, length, generator=generator) * valid,
        terminated=torch.zeros(batch, length, dtype=torch.bool),
        valid=valid,
    )
    real = segment.state_valid()[:, :, None]
    return dataclasses.replace(segment, state=segment.state * real, obs=segment.obs * real[..., None])


def random_transition(spec: EnvSpec, batch: int, generator: torch.Generator, is_first: Tensor) -> Transition:
    """One real step [B], with the global state."""
    return Transition(
        action=random_action(spec, batch, generator) * ~is_first[:, None, None],
        obs=random_obs(spec, batch, generator),
        state=random_state(spec, batch, generator),
        is_first=is_first,
    )


@torch.no_grad()
def stir(module: nn.Module, seed: int = 0, scale: float = 0.05) -> None:
    """Add noise to every parameter, so that nothing stays at the zeros that layers are initialised with."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
