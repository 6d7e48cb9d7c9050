"""Runs one command as a Hydra application and lets its errors through unprinted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

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

    sys.argv = [*sys.argv, *_QUIET]
    hydra.main(version_base="1.3", config_path="pkg://configs", config_name=config_name)(guarded)()
    if failures:
        raise failures[0]


def chosen_groups() -> dict[str, str]:
    """The configuration groups that the running command chose, by name."""
    chosen = HydraConfig.get().runtime.choices
    return {str(group): str(name) for group, name in chosen.items() if not str(group).startswith("hydra")}
