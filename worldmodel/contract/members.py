"""What comes before every check: the model can be built, and whatever the contract calls is there to be called."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any, cast

from torch import nn

from worldmodel.contract.subject import Subject, require
from worldmodel.protocol import TrainablePart

VERBS = {
    "parts": (),
    "update_statistics": ("trajectory",),
    "start": ("context", "generator="),
    "step": ("state", "action", "generator="),
    "observe": ("state", "transition", "generator="),
    "view": ("state",),
}
"""Each method of a `WorldModel` with what it is called with; `=` marks what is given by name."""

NUMBERS = {"context_length": int, "actor_dim": int, "critic_dim": int, "decentralized": bool}


def check_members(subject: Subject) -> None:
    """The config builds an nn.Module that has every member of WorldModel, called as the protocol calls them."""
    model = subject.build()
    require(isinstance(model, nn.Module), f"build(spec) returns a {type(model).__name__}: expected an nn.Module")
    require_members(model)
    for name, part in model.parts().items():
        kind = type(part).__name__
        require(isinstance(part, TrainablePart), f"part {name} is a {kind}: expected a TrainablePart")
    _require_known(cast("nn.Module", model), subject.dead_parameters)


def require_members(model: object) -> None:
    """Refuse a model that lacks a member of `WorldModel`, or has it with other arguments.

    Raises:
        BrokenContract: naming all that is missing, or the first method that cannot be called as the protocol says.
    """
    owner = type(model).__name__
    lacking = [name for name in [*VERBS, *NUMBERS] if not hasattr(model, name)]
    require(not lacking, f"{owner} lacks: {', '.join(lacking)}")
    for name, arguments in VERBS.items():
        require(callable(getattr(model, name)), f"{owner}.{name} is a {type(getattr(model, name)).__name__}: no method")
        require_takes(f"{owner}.{name}", getattr(model, name), arguments)
    for name, kind in NUMBERS.items():
        value = getattr(model, name)
        require(isinstance(value, kind), f"{owner}.{name} = {value!r}: expected {kind.__name__}")


def require_takes(name: str, method: Any, arguments: tuple[str, ...]) -> None:
    """Refuse a method that cannot be called with `arguments`, with the place where it is written."""
    given = [argument for argument in arguments if not argument.endswith("=")]
    by_name = {argument[:-1]: None for argument in arguments if argument.endswith("=")}
    try:
        inspect.signature(method).bind(*given, **by_name)
    except TypeError as error:
        code = inspect.unwrap(getattr(method, "__func__", method)).__code__
        call = ", ".join([*given, *(f"{argument}=.." for argument in by_name)])
        place = f"{Path(code.co_filename).name}, line {code.co_firstlineno}"
        require(False, f"{name} cannot be called as {name.split('.')[-1]}({call}): {error} ({place})")


def _require_known(model: nn.Module, dead: tuple[str, ...]) -> None:
    """Refuse names of dead parameters that are neither a parameter nor a module of `model`."""
    names = [name for name, _ in model.named_parameters()]
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    unknown = [name for name in dead if name not in {*names, *modules}]
    near = {match for name in unknown for match in difflib.get_close_matches(name, [*names, *modules], n=5, cutoff=0.4)}
    hint = f"; near them: {', '.join(sorted(near))}" if near else f"; there are {', '.join(names[:10]) or 'none'}"
    require(not unknown, f"dead_parameters: no parameter or module is called {', '.join(unknown)}{hint}")
