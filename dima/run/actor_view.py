"""How a world model turns observations into what actors see, as a module of its own that can be exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.config import ConfigError
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, Segment, Transition

_ROWS = 3


def actor_view(model: WorldModel[Any], spec: EnvSpec) -> nn.Module:
    """A module [B,N,O] -> [B,N,F] that gives the actors' view of `model` while acting.

    It is the model's own `actor_view`, a module, if it has one; else observations as they are. Either is compared with
    what the model itself shows, after one step and after another past.

    Raises:
        ConfigError: when the view depends on more than the present observations, or the model has no such module.
    """
    (_, view), (_, other) = shown = [_shown(model, spec, past) for past in (1, 2)]
    own = getattr(model, "actor_view", None)
    candidate = own if isinstance(own, nn.Module) else nn.Identity()
    with torch.no_grad():
        if all(torch.equal(candidate(obs), view) for obs, view in shown):
            return candidate
    name = type(model).__name__
    if not torch.equal(view, other):
        raise ConfigError(
            f"what actors see of {name} depends on more than the present observations,"
            " so that the policy cannot be exported without the world model"
        )
    raise ConfigError(
        f"{name} has no module `actor_view` that shows the present observations as its actors see them,"
        " which export needs: see docs/plug_in_a_world_model.md"
    )


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
