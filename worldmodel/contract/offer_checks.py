"""Checks of what a model may offer beyond the contract: nobody has to, but who does must keep it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from worldmodel.config import ConfigError
from worldmodel.contract.members import require_members
from worldmodel.contract.records import check_carry, check_kind, check_prediction, check_step, check_tensor, check_view
from worldmodel.contract.subject import (
    BATCH,
    BrokenContract,
    first_difference,
    make_actions,
    require,
    roll_out,
    same,
    seeded,
    start,
)
from worldmodel.protocol import Accelerable, OrderedWorldModel, StateDecoding, WorldModel
from worldmodel.types import EnvSpec


def check_offers(model: WorldModel[Any], spec: EnvSpec) -> None:
    """Every offer of `worldmodel.protocol` that the model makes gives what that protocol says."""
    if isinstance(model, StateDecoding):
        _check_decoding(model, spec)
    alone = [name for name in ("with_order", "without_actions") if hasattr(model, name)]
    require(
        len(alone) != 1, f"{''.join(alone)} without the other: an OrderedWorldModel has with_order, without_actions"
    )
    if isinstance(model, OrderedWorldModel):
        _check_orders(model, spec)
    if isinstance(model, Accelerable):
        _check_variant("accelerated()", model.accelerated(), spec)


def _check_decoding(model: StateDecoding, spec: EnvSpec) -> None:
    states = torch.randn(BATCH + 1, spec.state_dim, generator=seeded(51))
    sizes = {"B": len(states), "N": spec.num_agents, "O": spec.obs_dim}
    check_tensor("decode_states(state [B,S])", model.decode_states(states), "B N O", sizes)


def _check_orders(model: Any, spec: EnvSpec) -> None:
    """Orders that the model takes, and its twin without actions, imagine; the model itself stays as it is."""
    actions, others = make_actions(spec, 1), make_actions(spec, 1, 12)
    before = roll_out(model, start(model, spec), actions)
    for order in (tuple(range(spec.num_agents)), "cycle"):
        try:
            ordered = model.with_order(order)
        except ConfigError:
            continue  # the model knows no such order, and says so
        _check_variant(f"with_order({order!r})", ordered, spec)
    blind = model.without_actions()
    _check_variant("without_actions()", blind, spec)
    require(
        first_difference(before, roll_out(model, start(model, spec), actions)) is None,
        "with_order or without_actions changed the model that it was asked of",
    )
    one, other = (roll_out(blind, start(blind, spec), each) for each in (actions, others))
    # Reward and continuation may be functions of the action beside the state that was sampled without it.
    sampled = [name for name in ("prediction 1: state", "prediction 1: obs") if name in one]
    seen = [name for name in sampled if not same(one[name], other[name])]
    require(not seen, f"without_actions(): {', '.join(seen)} changes with the current action")


def _check_variant(name: str, model: Any, spec: EnvSpec) -> None:
    """The model that an offer returned is a world model, and imagines a step of the right sizes."""
    check_kind(name, model, nn.Module)
    try:
        require_members(model)
        state = start(model, spec)
        check_carry(state, "start")
        result = model.step(state, make_actions(spec, 1)[0], generator=seeded(0))
        check_step(result)
        check_prediction(spec, result[1], BATCH)
        check_view(model, spec, model.view(result[0]), "step", BATCH)
    except BrokenContract as error:
        raise BrokenContract(f"{name}: {error}") from error
