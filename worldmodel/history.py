"""What an agent may infer the global state from: the last observations, remembered step by step or cut from segments.

Shared by everything that acts on inferred states and by everything that learns to infer them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.protocol import StateInference
from worldmodel.types import Segment


def begin_history(obs: Tensor, history_steps: int) -> Tensor:
    """The history [B,m+1,N,O] at an episode's first observation [B,N,O]: m = `history_steps` copies stand before it."""
    return obs[:, None].expand(-1, history_steps + 1, -1, -1).clone()


def extend_history(history: Tensor, obs: Tensor, is_first: Tensor) -> Tensor:
    """The history [B,m+1,N,O] after one more observation [B,N,O]; rows with `is_first` [B] begin anew."""
    moved = torch.cat([history[:, 1:], obs[:, None]], dim=1)
    return torch.where(is_first[:, None, None, None], obs[:, None], moved)


def segment_history(segment: Segment, history_steps: int) -> Tensor:
    """The history [B,m+1,N,O] that led to state m = `history_steps` of `segment` [B,T], T > m.

    Where the episode had not begun, copies of its first observation stand, as `begin_history` puts them.
    """
    obs = segment.obs[:, : history_steps + 1]
    real = segment.state_valid()[:, : history_steps + 1]
    first = real.int().argmax(dim=1)  # the first real one
    step = torch.arange(history_steps + 1, device=obs.device)
    index = torch.maximum(step, first[:, None])
    return obs.gather(1, index[:, :, None, None].expand_as(obs))


def infer_for_agents(
    inference: StateInference, history: Tensor, state: Tensor, *, num_samples: int, generator: torch.Generator
) -> Tensor:
    """The states [M,B,N,S] that each agent infers for itself, M = `num_samples` draws each, from `history` [B,m+1,N,O].

    `state` [B,S] is the true one, for oracles.
    """
    batch, _, num_agents, _ = history.shape
    rows = history[:, None].expand(-1, num_agents, -1, -1, -1).flatten(0, 1)  # [B,m+1,N,O] -> [B*N,m+1,N,O]
    agent = torch.arange(num_agents, device=history.device).repeat(batch)
    true = state.repeat_interleave(num_agents, dim=0)
    inferred = inference.infer(rows, num_samples=num_samples, generator=generator, agent=agent, state=true)
    return inferred.unflatten(1, (batch, num_agents))
