"""Checks of what is trained and saved: parts, their losses on padded batches, gradients, the state dict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from worldmodel.config import OptimConfig
from worldmodel.contract.members import require_takes
from worldmodel.contract.random_data import random_segment
from worldmodel.contract.records import check_kind
from worldmodel.contract.subject import (
    BrokenContract,
    Subject,
    choose,
    first_difference,
    make_actions,
    make_transition,
    require,
    roll_out,
    seeded,
    start,
)
from worldmodel.protocol import TrainablePart, WorldModel
from worldmodel.types import EnvSpec, LossOutput, Segment


def training_segment(part: TrainablePart, spec: EnvSpec, batch: int = 16) -> Segment:
    """A batch [B] of the part's own length: of three rows one starts anywhere, and one terminates anywhere."""
    length, row = part.segment_length, torch.arange(batch)
    position, steps = row // 3 % length, torch.arange(length)
    first = torch.where(row % 3 == 1, position, 0)[:, None]
    last = torch.where(row % 3 == 2, position, length - 1)[:, None]
    segment = random_segment(spec, batch, length, seeded(20), (steps >= first) & (steps <= last))
    return dataclasses.replace(segment, terminated=(steps == last) & (row % 3 == 2)[:, None])


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
    saved = model.state_dict()
    if saved:
        require(first_difference(expected, play(loaded)) is not None, "models of different weights do the same")
    for name, value in saved.items():
        require(isinstance(value, Tensor), f"state_dict()[{name!r}] is a {type(value).__name__}: expected a Tensor")
    loaded.load_state_dict({name: value.clone() for name, value in saved.items()})
    difference = first_difference(expected, play(loaded))
    require(difference is None, f"{difference} is another after save and load: something is not in the state dict")


def check_parts(subject: Subject) -> None:
    """Every part says what it is trained on, and has a finite scalar loss on it, also where nothing is valid."""
    model, spec = subject.model(), subject.spec
    parts = model.parts()
    require(bool(parts) or not subject.learns, "parts() is empty, and the model has parameters: nothing trains them")
    for name, part in parts.items():
        check_kind(f"part {name}", part, TrainablePart)
        require_takes(f"part {name}.forward", part.forward, ("segment", "generator"))
        optim = getattr(part, "optim", None)
        require(isinstance(optim, OptimConfig), f"part {name}: optim = {optim!r}: expected an OptimConfig")
        lengths = f"part {name}: segment_length = {part.segment_length}, burn_in = {part.burn_in}"
        require(0 <= part.burn_in < part.segment_length, f"{lengths}: expected 0 <= burn_in < segment_length")
        for what, segment in {
            "a batch with padding": training_segment(part, spec),
            "one row": random_segment(spec, 1, part.segment_length, seeded(21)),
            "a batch without any valid step": random_segment(
                spec, 3, part.segment_length, seeded(22), torch.zeros(3, part.segment_length, dtype=torch.bool)
            ),
        }.items():
            where = f"part {name} on {what}"
            output, again = part(segment, seeded(23)), part(segment, seeded(23))
            check_kind(f"{where}: what forward returns", output, LossOutput)
            _check_scalar(f"{where}: loss", output.loss)
            require(output.loss.requires_grad, f"{where}: the loss has no gradient")
            require(torch.equal(output.loss, again.loss), f"{where}: the same seed gives another loss")
            for metric, value in output.metrics.items():
                _check_scalar(f"{where}: metric {metric}", value, detached=True)


def _check_scalar(name: str, value: object, *, detached: bool = False) -> None:
    """Refuse what is not one finite number in a tensor."""
    expected = f"expected a {'detached ' if detached else ''}scalar tensor"
    if not isinstance(value, Tensor):
        raise BrokenContract(f"{name} is a {type(value).__name__}: {expected}")
    require(value.shape == (), f"{name} has shape {list(value.shape)}: {expected}")
    require(not (detached and value.requires_grad), f"{name} is not detached: {expected}")
    require(torch.isfinite(value.detach()), f"{name} = {value.item()}: expected a finite number")


def check_only_valid_counts(subject: Subject) -> None:
    """What a batch holds behind the last real step of a row does not change a part's loss, to the bit."""
    model, spec = subject.model(), subject.spec
    for name, part in model.parts().items():
        segment = training_segment(part, spec)
        filled = _fill_behind(segment, random_segment(spec, len(segment.valid), segment.length, seeded(25)))
        loss, other = part(segment, seeded(26)).loss, part(filled, seeded(26)).loss
        require(torch.equal(loss, other), f"part {name}: the loss changes with what stands behind the last valid step")


def _fill_behind(segment: Segment, noise: Segment) -> Segment:
    """`segment` with `noise` behind each row's last real state and transition, which is said to terminate there."""
    after, unreal = _behind(segment.valid), _behind(segment.state_valid())
    return dataclasses.replace(
        segment,
        obs=choose(unreal, noise.obs, segment.obs),
        state=choose(unreal, noise.state, segment.state),
        action=choose(after, noise.action, segment.action),
        reward=choose(after, noise.reward, segment.reward),
        terminated=segment.terminated | after,
    )


def _behind(real: Tensor) -> Tensor:
    """[B,T] bool: neither this one nor any later one is real."""
    return real.flip(1).cumsum(1).flip(1) == 0


def check_training_resumes(subject: Subject) -> None:
    """In training mode, a model that loads another one's state dict has the same losses from there on, to the bit."""
    trained, resumed = subject.model(seed=0), subject.model(seed=1)
    for model in (trained, resumed):
        model.train(True)
    for seed in (27, 28):
        _losses(trained, subject.spec, seed)
    resumed.load_state_dict({name: value.clone() for name, value in trained.state_dict().items()})
    expected, losses = _losses(trained, subject.spec, 29), _losses(resumed, subject.spec, 29)
    for name, loss in expected.items():
        same = torch.equal(loss, losses[name])
        require(same, f"part {name}: its loss is another after save and load: it counts on what is not in state_dict()")


def _losses(model: WorldModel[Any], spec: EnvSpec, seed: int) -> dict[str, Tensor]:
    """The loss of every part, as `seed` has it."""
    losses: dict[str, Tensor] = {}
    for name, part in model.parts().items():
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses[name] = part(training_segment(part, spec), seeded(seed)).loss.detach()
        alone = torch.equal(before, torch.get_rng_state())
        require(alone or not part.independent, f"part {name} is independent and draws from torch's default generator")
    return losses


def check_one_part_each(subject: Subject) -> None:
    """Each parameter of the model belongs to one part and to no other."""
    model = cast("nn.Module", subject.model())
    parts = {name: {id(parameter) for parameter in part.parameters()} for name, part in _parts_of(model).items()}
    owners = {
        name: [part for part, owned in parts.items() if id(parameter) in owned]
        for name, parameter in model.named_parameters()
    }
    for name, owning in owners.items():
        require(len(owning) < 2, f"parameter {name} belongs to the parts {' and '.join(owning)}")
    orphans = [name for name, owning in owners.items() if not owning and not subject.is_dead(name)]
    hint = _missing_part(model, orphans)
    require(not orphans, f"in none of the parts {', '.join(parts)}: {spell_parameters(model, orphans)}{hint}")


def check_every_parameter_learns(subject: Subject) -> None:
    """Each parameter of the model gets a gradient that is not zero from the loss of a part."""
    model, spec = cast("nn.Module", subject.model()), subject.spec
    parts = _parts_of(model)
    for part in parts.values():
        part(training_segment(part, spec, batch=48), seeded(24)).loss.backward()
    learns = {
        name: parameter.grad is not None and bool(parameter.grad.any()) for name, parameter in model.named_parameters()
    }
    lying = [name for name in learns if learns[name] and subject.is_dead(name)]
    require(not lying, f"said to be dead and learns: {spell_parameters(model, lying)}")
    dead = [name for name in learns if not learns[name] and not subject.is_dead(name)]
    owned = {id(parameter) for part in parts.values() for parameter in part.parameters()}
    hint = _missing_part(model, [name for name in dead if id(model.get_parameter(name)) not in owned])
    require(not dead, f"no gradient from any of {', '.join(parts)}: {spell_parameters(model, dead)}{hint}")


def _parts_of(model: nn.Module) -> Mapping[str, TrainablePart]:
    return cast("WorldModel[Any]", model).parts()


def spell_parameters(model: nn.Module, names: Sequence[str]) -> str:
    """`names` of parameters, the whole of a module as `module.* (how many)`."""
    left, spelled = list(names), []
    for prefix in _whole_modules(model, names):
        inside = [name for name in left if name.startswith(f"{prefix}.")]
        left = [name for name in left if name not in inside]
        spelled.append(f"{prefix}.* ({len(inside)} parameters)")
    return ", ".join([*spelled, *left])


def _whole_modules(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The outermost modules of several parameters, all of which are among `names`."""
    whole: list[str] = []
    for prefix, module in model.named_modules():
        inside = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
        covered = any(prefix.startswith(f"{outer}.") for outer in whole)
        if prefix and len(inside) > 1 and set(inside) <= set(names) and not covered:
            whole.append(prefix)
    return whole


def _missing_part(model: nn.Module, orphans: Sequence[str]) -> str:
    """A question where `orphans`, which no part owns, are the whole of a module: is it a part that was forgotten?"""
    whole = _whole_modules(model, orphans)
    return f"; is {' or '.join(whole)} missing from parts()?" if whole else ""
