"""How a world model turns observations into what actors see, as a module of its own that can be exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dima.world_model import DimaWorldModel
from worldmodel.config import ConfigError
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, Segment, Transition

_ROWS = 3


class NormalizedView(nn.Module):
    """DIMA's view with `normalize_obs`: standardised but for the agents' ids."""

    is_agent_id: Tensor

    def __init__(self, model: DimaWorldModel) -> None:
        """Share the statistics of `model`."""
        super().__init__()
        self.norm = model.obs_norm
        self.register_buffer("is_agent_id", model.decoder.layout.is_agent_id)

    def forward(self, obs: Tensor) -> Tensor:
        """[B,N,O] -> [B,N,O]."""
        normal = self.norm.normalize(obs.flatten(1)).unflatten(1, obs.shape[1:])
        return torch.where(self.is_agent_id, obs, normal)


def actor_view(model: WorldModel[Any], spec: EnvSpec) -> nn.Module:
    """A module [B,N,O] -> [B,N,F] that gives the actors' view of `model` while acting.

    Every candidate is compared with what the model itself shows, after one step and after another past.

    Raises:
        ConfigError: when the view depends on more than the present observations.
    """
    shown = [_shown(model, spec, past) for past in (1, 2)]
    for candidate in _candidates(model):
        if all(torch.equal(candidate(obs), view) for obs, view in shown):
            return candidate
    raise ConfigError(
        f"what actors see of {type(model).__name__} is no known function of the present observations,"
        " so that the policy cannot be exported without the world model"
    )


def _candidates(model: WorldModel[Any]) -> Iterator[nn.Module]:
    own = getattr(model, "actor_view", None)
    if isinstance(own, nn.Module):
        yield own
    yield nn.Identity()
    if isinstance(model, DimaWorldModel):
        yield NormalizedView(model)


@torch.no_grad()
def _shown(model: WorldModel[Any], spec: EnvSpec, past: int) -> tuple[Tensor, Tensor]:
    """Random observations [B,N,O], the same for any `past`, and what the model shows after so many steps."""
    now, before = torch.Generator().manual_seed(0), torch.Generator().manual_seed(past)
    state = torch.randn(_ROWS, spec.state_dim, generator=before)
    obs = torch.randn(_ROWS, spec.num_agents, spec.obs_dim, generator=before)
    carry = model.start(Segment.from_first(obs, state, spec.action_dim, model.context_length), generator=before)
    last = torch.randn(_ROWS, spec.num_agents, spec.obs_dim, generator=now)
    for step in range(past + 1):
        seen = last if step == past else torch.randn(last.shape, generator=before)
        action = torch.zeros(_ROWS, spec.num_agents, spec.action_dim)
        transition = Transition(action, seen, state, torch.full((_ROWS,), step == 0))
        carry = model.observe(carry, transition, generator=before)
    return last, model.view(carry).actor
