"""Checks of what is trained and saved: parts, their losses on padded batches, gradients, the state dict."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn

from worldmodel.contract.random_data import random_segment
from worldmodel.contract.subject import (
    Subject,
    first_difference,
    make_actions,
    make_transition,
    require,
    roll_out,
    seeded,
    start,
)
from worldmodel.protocol import TrainablePart, WorldModel
from worldmodel.types import EnvSpec, Segment


def training_segment(part: TrainablePart, spec: EnvSpec, batch: int = 16) -> Segment:
    """A batch [B] of the part's own length; some rows start or end inside."""
    length = part.segment_length
    first = torch.arange(batch) % length * (torch.arange(batch) % 3 == 1)
    last = torch.where(torch.arange(batch) % 3 == 2, torch.arange(batch) % length + 1, length)
    steps = torch.arange(length)
    segment = random_segment(spec, batch, length, seeded(20), (steps >= first[:, None]) & (steps < last[:, None]))
    ended = segment.valid & ~torch.nn.functional.pad(segment.valid, (0, 1))[:, 1:] & (last < length)[:, None]
    return dataclasses.replace(segment, terminated=ended)


def check_save_and_load(subject: Subject) -> None:
    """A model built anew that loads the state dict does the same as the saved one; the state dict is tensors alone."""
    model, spec = subject.model(seed=0), subject.spec
    loaded = subject.model(seed=1)
    actions = make_actions(spec, 3)

    def play(played: WorldModel[Any]) -> dict[str, Tensor]:
        state = start(played, spec)
        observed = played.observe(state, make_transition(spec), generator=seeded(0))
        seen = roll_out(played, state, actions)
        return seen | {f"after observe, {name}": value for name, value in roll_out(played, observed, actions).items()}

    expected = play(model)
    require(first_difference(expected, play(loaded)) is not None, "models of different weights do the same")
    saved = model.state_dict()
    for name, value in saved.items():
        require(isinstance(value, Tensor), f"state_dict()[{name!r}] is a {type(value).__name__}: expected a Tensor")
    loaded.load_state_dict({name: value.clone() for name, value in saved.items()})
    difference = first_difference(expected, play(loaded))
    require(difference is None, f"{difference} is another after save and load: something is not in the state dict")


def check_parts(subject: Subject) -> None:
    """Every part says what it is trained on, and has a finite scalar loss on it, also where nothing is valid."""
    model, spec = subject.model(), subject.spec
    parts = model.parts()
    require(bool(parts), "parts() is empty: there is nothing to train")
    for name, part in parts.items():
        require(isinstance(part, TrainablePart), f"part {name} is a {type(part).__name__}: expected a TrainablePart")
        lengths = f"part {name}: segment_length = {part.segment_length}, burn_in = {part.burn_in}"
        require(0 <= part.burn_in < part.segment_length, f"{lengths}: expected 0 <= burn_in < segment_length")
        for what, segment in {
            "a batch with padding": training_segment(part, spec),
            "one row": random_segment(spec, 1, part.segment_length, seeded(21)),
            "a batch without any valid step": random_segment(
                spec, 3, part.segment_length, seeded(22), torch.zeros(3, part.segment_length, dtype=torch.bool)
            ),
        }.items():
            output, again = part(segment, seeded(23)), part(segment, seeded(23))
            where = f"part {name} on {what}"
            require(output.loss.shape == (), f"{where}: loss has shape {list(output.loss.shape)}, expected a scalar")
            require(output.loss.requires_grad, f"{where}: the loss has no gradient")
            require(torch.isfinite(output.loss), f"{where}: loss = {output.loss}")
            require(torch.equal(output.loss, again.loss), f"{where}: the same seed gives another loss")
            for metric, value in output.metrics.items():
                require(value.shape == (), f"{where}: metric {metric} has shape {list(value.shape)}, expected a scalar")
                require(not value.requires_grad, f"{where}: metric {metric} is not detached")
                require(torch.isfinite(value), f"{where}: metric {metric} = {value}")


def check_every_parameter_learns(subject: Subject) -> None:
    """Each parameter of the model gets a gradient that is not zero from the loss of a part."""
    model, spec = subject.model(), subject.spec
    for part in model.parts().values():
        part(training_segment(part, spec, batch=48), seeded(24)).loss.backward()
    for name, parameter in cast("nn.Module", model).named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        if name in subject.dead_parameters:
            require(not learns, f"parameter {name} is said to be dead and learns")
        else:
            require(learns, f"parameter {name} gets no gradient from any of {list(model.parts())}")
