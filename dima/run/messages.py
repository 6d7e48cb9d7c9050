"""One clear line for each thing a user can get wrong: what it is, and what to do about it."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Sequence

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from dima.run.known_keys import choices, known_keys
from worldmodel.config import Config

_USER_ERRORS = (
    ValueError,
    FloatingPointError,
    OSError,
    ModuleNotFoundError,
    HydraException,
    OmegaConfBaseException,
    MemoryError,
)

_EXTRAS = {
    "imageio_ffmpeg": "'dima[video]'",
    "tensorboard": "'dima[tensorboard]'",
    "gymnasium_robotics": "gymnasium-robotics",
    "hydra": "hydra-core",
    "sklearn": "scikit-learn",
    "vector_quantize_pytorch": "vector-quantize-pytorch",
}
"""What to install for a package, where that is not its own name."""


_FEW = 12
"""So many choices are listed."""

_OWN_PACKAGES = ("configs", "dima", "envs", "imagination", "worldmodel")


def is_user_error(error: BaseException) -> bool:
    """Whether `error` is about what the program was given; anything else is a fault of ours and shows a traceback."""
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in _OWN_PACKAGES:
        return False
    return isinstance(error, _USER_ERRORS) or type(error).__name__ == "OutOfMemoryError"


def own_model_in(error: BaseException) -> str | None:
    """The class of a person's own world model, part or config in whose code `error` was raised."""
    from torch import nn  # slow to import

    for frame, _ in traceback.walk_tb(error.__traceback__):
        kind = type(frame.f_locals.get("self"))
        if issubclass(kind, nn.Module) or (issubclass(kind, Config) and "spec" in frame.f_locals):  # build(spec)
            package = kind.__module__.partition(".")[0]
            if package not in _OWN_PACKAGES:
                return f"{kind.__module__}.{kind.__qualname__}"
            if issubclass(kind, nn.Module):
                return None  # a model of ours, and what it is made of
    return None


def one_line(error: BaseException, command: str, arguments: Sequence[str]) -> str:
    """`error` in one line, with a suggestion where a name is nearly right."""
    if isinstance(error, ModuleNotFoundError):
        name = str(error.name).partition(".")[0]
        return f"package {name!r} is missing; install it: pip install {_EXTRAS.get(name, name)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        return _explain_choice(group, name, choices(group, arguments))
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ConfigCompositionException):
        return _explain_composition(text, command, arguments)
    if isinstance(error, FloatingPointError) or not isinstance(error, HydraException):
        return text
    return f"{text} (dima {command} --help shows what can be said)"


def nearest(name: str, options: Iterable[str]) -> str:
    """`name`, quoted, and the option closest to it where one is close."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f"{name!r}; did you mean {close[0]!r}?" if close else repr(name)


def _explain_choice(group: str, name: str, offered: Sequence[str]) -> str:
    few = f" ({group}: {', '.join(offered)})" if 0 < len(offered) <= _FEW else ""
    own = f"; for a {group}/{name}.yaml of yours name its folder: 'hydra.searchpath=[file:///FOLDER]'"
    return f"{group}={name}: there is no such choice as {nearest(name, offered)}{few}{own}"


def _explain_composition(text: str, command: str, arguments: Sequence[str]) -> str:
    for argument in arguments:
        key = argument.split("=", 1)[0].lstrip("+~")
        if f"'{key}'" in text:
            known = known_keys(command, arguments)
            return _refused_on_resume(argument, command, arguments, known) or (
                f"{argument}: unknown key {nearest(key, known)}"
            )
    return text


def _refused_on_resume(argument: str, command: str, arguments: Sequence[str], known: Iterable[str]) -> str | None:
    """What a resumed run says of a value of its own that it keeps; the default model may not even have such a key."""
    from dima.run import fit_settings, settings  # torch: slow to import, and these import the names above

    free = {"train": settings.FREE_ON_RESUME, "fit": fit_settings.FREE_ON_RESUME}.get(command)
    root = argument.partition("=")[0].lstrip("+~").partition(".")[0]
    resumes = any(each.startswith("resume=") for each in arguments)
    return settings.refused_on_resume(argument, free) if free and resumes and root in {*known} - {*free} else None
