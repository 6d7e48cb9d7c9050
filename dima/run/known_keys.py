"""What a command's configuration can be told: the choices of its groups, and its keys, a plug-in's among them.

A key is listed in a file, or is a field with a default of the config class that `_target_` names.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import configs
from worldmodel.config import Config, field_default

_SEARCH_PATH = "hydra.searchpath="


def search_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders that `hydra.searchpath=[file://FOLDER]` names."""
    said = [argument for argument in arguments if argument.startswith(_SEARCH_PATH)]
    return [Path(folder) for argument in said for folder in re.findall(r"file://([^,\]'\"]+)", argument)]


def choices(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """What the group offers, by the names under which it is chosen, here and in the folders of the search path."""
    if not group.replace("/", "").isidentifier():
        return []
    # Groups that are a command's own, such as inference, are kept in a folder of their own (configs/fit.yaml).
    found: set[str] = set()
    for folder in (resources.files(configs) / group, resources.files(configs) / "fitting" / group):
        with resources.as_file(folder) as path:
            found |= _names(path)
    return sorted(found.union(*(_names(folder / group) for folder in search_folders(arguments))))


def _names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")}


def known_keys(command: str, arguments: Sequence[str]) -> dict[str, bool]:
    """Every dotted key with the groups that `arguments` choose: True where a file lists it, False for other fields.

    Empty where nothing can be composed.
    """
    chosen = [
        argument
        for argument in arguments
        if argument.startswith(_SEARCH_PATH)
        or ("." not in argument.split("=", 1)[0] and choices(argument.split("=", 1)[0], arguments))
    ]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("configs", version_base="1.3"):
            return dict(_keys(compose(command.replace("-", "_"), chosen)))
    except HydraException:
        return {}


def with_unlisted_fields(command: str, arguments: Sequence[str]) -> list[str]:
    """`arguments` with `++` before those that set a field of a plug-in's config class which no file lists."""
    keys = known_keys(command, arguments)
    return [f"++{argument}" if keys.get(argument.partition("=")[0]) is False else argument for argument in arguments]


def _keys(node: DictConfig, default: Config | None = None, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(key, whether it is listed) of everything in and below `node`, which says `_target_` or changes `default`."""
    below = _defaults(node, default)
    for key in dict.fromkeys([*map(str, node), *below]):
        yield f"{prefix}{key}", key in node
        value = None if key not in node or OmegaConf.is_missing(node, key) else node[key]
        inner = below.get(key) if isinstance(below.get(key), Config) else None
        if isinstance(value, DictConfig) or (value is None and inner is not None):
            yield from _keys(OmegaConf.create({}) if value is None else value, inner, f"{prefix}{key}.")


def _defaults(node: DictConfig, default: Config | None) -> dict[str, Any]:
    """The values that fields have where `node` does not give them."""
    kind = _named_class(node)
    if kind is None:
        return (
            {} if default is None else {each.name: getattr(default, each.name) for each in dataclasses.fields(default)}
        )
    values = {each.name: field_default(each) for each in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if value is not dataclasses.MISSING}


def _named_class(node: DictConfig) -> type[Config] | None:
    if OmegaConf.is_missing(node, "_target_"):
        return None
    module, _, name = str(node.get("_target_")).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception:  # importing a plug-in may raise anything, and who builds it says so
        return None
    return found if isinstance(found, type) and issubclass(found, Config) else None
