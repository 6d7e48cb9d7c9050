"""Runs one command as a Hydra application and lets its errors through unprinted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

_QUIET = (
    "hydra.run.dir=.",  # commands name their own folders; Hydra writes nothing of its own
    "hydra.output_subdir=null",
    "hydra.job.chdir=false",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.sweep.dir=runs/sweeps/${now:%Y%m%d-%H%M%S}",  # -m: what was swept is noted here
    "hydra.sweep.subdir=.",
)

_FLAGS = ("-h", "--help", "--hydra-help", "--version", "-m", "--multirun", "-r", "--run", "--resolve")
_FLAGS_WITH_VALUE = ("-c", "--cfg", "-i", "--info", "-p", "--package", "-cd", "--config-dir", "-cn", "--config-name")


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the overrides: it would not accept them mixed.

    Raises:
        ValueError: naming a flag that is not known.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, _ = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(argument)
        elif name in _FLAGS_WITH_VALUE:
            flags += [argument] if has_value or not rest else [argument, rest.pop(0)]
        elif name in _FLAGS:
            flags.append(argument)
        else:
            raise ValueError(f"unknown option {argument}; values are given as key=value, --help lists them")
    return flags, overrides


def run_app(config_name: str, command: Callable[[DictConfig], None]) -> None:
    """Compose `configs/CONFIG_NAME.yaml` with the command line and hand it to `command`; `-m` does so for each choice.

    Raises:
        BaseException: whatever `command` raises; a sweep stops at its first failure.
    """
    # Hydra prints errors in its own way and exits with 1: composition errors are let through by this variable, and
    # those of the command never reach it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    failures: list[BaseException] = []

    def guarded(config: DictConfig) -> None:
        if failures:
            return
        try:
            command(config)
        except BaseException as error:  # handed on below
            failures.append(error)

    flags, overrides = split_flags(sys.argv[1:])
    sys.argv = [sys.argv[0], *flags, *overrides, *_QUIET]
    hydra.main(version_base="1.3", config_path="pkg://configs", config_name=config_name)(guarded)()
    if failures:
        raise failures[0]


def chosen_groups() -> dict[str, str]:
    """The configuration groups that the running command chose, by name."""
    chosen = HydraConfig.get().runtime.choices
    return {str(group): str(name) for group, name in chosen.items() if not str(group).startswith("hydra")}
