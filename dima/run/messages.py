"""One clear line for each thing a user can get wrong: what it is, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import configs

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


_OWN_PACKAGES = ("configs", "dima", "envs", "imagination", "worldmodel")


def is_user_error(error: BaseException) -> bool:
    """Whether `error` is about what the program was given; anything else is a fault of ours and shows a traceback."""
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in _OWN_PACKAGES:
        return False
    return isinstance(error, _USER_ERRORS) or type(error).__name__ == "OutOfMemoryError"


def one_line(error: BaseException, command: str, arguments: Sequence[str]) -> str:
    """`error` in one line, with a suggestion where a name is nearly right."""
    if isinstance(error, ModuleNotFoundError):
        name = str(error.name).partition(".")[0]
        return f"package {name!r} is missing; install it: pip install {_EXTRAS.get(name, name)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        return f"{group}={name}: there is no such choice as {nearest(name, _choices(group))}"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ConfigCompositionException):
        return _explain_composition(text, command.replace("-", "_"), arguments)
    if isinstance(error, FloatingPointError) or not isinstance(error, HydraException):
        return text
    return f"{text} (dima {command} --help shows what can be said)"


def nearest(name: str, options: Iterable[str]) -> str:
    """`name`, quoted, and the option closest to it where one is close."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f"{name!r}; did you mean {close[0]!r}?" if close else repr(name)


def _explain_composition(text: str, config_name: str, arguments: Sequence[str]) -> str:
    for argument in arguments:
        key = argument.split("=", 1)[0].lstrip("+~")
        if f"'{key}'" in text:
            return f"{argument}: unknown key {nearest(key, _known_keys(config_name, arguments))}"
    return text


def _known_keys(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Every dotted key of a command's configuration with the groups that `arguments` choose; empty if it has none."""
    chosen = [
        argument
        for argument in arguments
        if "." not in argument.split("=", 1)[0] and _choices(argument.split("=", 1)[0])
    ]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("configs", version_base="1.3"):
            return list(_dotted(compose(config_name, chosen)))
    except HydraException:
        return []


def _dotted(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        name = f"{prefix}{key}"
        yield name
        value = None if OmegaConf.is_missing(config, key) else config[key]
        if isinstance(value, DictConfig):
            yield from _dotted(value, f"{name}.")


def _choices(group: str) -> list[str]:
    """The files that `configs/GROUP/` offers, by the names under which they are chosen."""
    if not group.replace("/", "").isidentifier():
        return []
    # Groups that are a command's own, such as inference, are kept in a folder of their own (configs/fit.yaml).
    found: set[str] = set()
    for folder in (resources.files(configs) / group, resources.files(configs) / "fitting" / group):
        with resources.as_file(folder) as path:
            found |= {str(file.relative_to(path).with_suffix("")) for file in path.rglob("*.yaml")}
    return sorted(found)
