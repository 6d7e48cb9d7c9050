"""Runs one command as a Hydra application and lets its errors through unprinted."""

from __future__ import annotations

import os
from collections.abc import Callable

import hydra
from omegaconf import DictConfig


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

    hydra.main(version_base="1.3", config_path="pkg://configs", config_name=config_name)(guarded)()
    if failures:
        raise failures[0]
