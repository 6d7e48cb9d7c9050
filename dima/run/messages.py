"""One clear line for each thing a user can get wrong: what it is, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

_USER_ERRORS = (
    ValueError,
    FloatingPointError,
    OSError,
    ModuleNotFoundError,
    HydraException,
    OmegaConfBaseException,
    MemoryError,
)


def is_user_error(error: BaseException) -> bool:
    """Whether `error` is about what the program was given; anything else is a fault of ours and shows a traceback."""
    return isinstance(error, _USER_ERRORS) or type(error).__name__ == "OutOfMemoryError"


def one_line(error: BaseException, command: str, arguments: Sequence[str]) -> str:
    """`error` in one line, with a suggestion where a name is nearly right."""
    if isinstance(error, ModuleNotFoundError):
        return f"package {error.name!r} is missing; install it: pip install {error.name}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        wanted = str(error.missing_cfg_file)
        group, _, name = wanted.partition("/")
        return f"{group}={name}: there is no such choice{nearest(name, _leaves(group, error.options))}"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ConfigCompositionException):
        return _explain_composition(text, command.replace("-", "_"), arguments)
    if isinstance(error, FloatingPointError) or not isinstance(error, HydraException):
        return text
    return f"{text} (dima {command} --help shows what can be said)"


def nearest(name: str, options: Iterable[str]) -> str:
    """`; did you mean ...?` for the option closest to `name`, or nothing when none is close."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" {name!r}; did you mean {close[0]!r}?" if close else f" {name!r}"


def _explain_composition(text: str, config_name: str, arguments: Sequence[str]) -> str:
    for argument in arguments:
        key = argument.split("=", 1)[0].lstrip("+~")
        if f"'{key}'" in text or key in text.split("'"):
            return f"{argument}: unknown key{nearest(key, _known_keys(config_name))}"
    return text


def _known_keys(config_name: str) -> list[str]:
    """Every dotted key of a command's configuration, groups included."""
    GlobalHydra.instance().clear()
    with initialize_config_module("configs", version_base="1.3"):
        config = compose(config_name)
    return list(_dotted(config))


def _dotted(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        name = f"{prefix}{key}"
        yield name
        value = config._get_node(key)
        if isinstance(value, DictConfig) and not value._is_missing() and not value._is_none():
            yield from _dotted(value, f"{name}.")


def _leaves(group: str, options: Sequence[str]) -> list[str]:
    return [option.removeprefix(f"{group}/") for option in options]
