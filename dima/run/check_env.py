"""`dima check-env`: tells the author of an environment what is wrong with it, and what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

from omegaconf import DictConfig

from dima.run.console import announce, say
from dima.run.hydra_app import run_app
from dima.run.settings import read_settings
from envs.base import EnvConfig, EnvError
from envs.check import check_env
from worldmodel.config import Config


@dataclasses.dataclass(frozen=True)
class CheckEnvSettings(Config):
    """Everything that `dima check-env` is told."""

    env: Any
    """An `EnvConfig`."""

    def validate(self) -> None:
        """Refuse what builds no environment."""
        self.require(isinstance(self.env, EnvConfig), "env", "a config with build(), named by env._target_")


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("check_env", check)


def check(config: DictConfig) -> None:
    """Check the environment that `config` names and print every finding.

    Raises:
        EnvError: when a finding is an error rather than a warning.
    """
    settings: CheckEnvSettings = read_settings(config)
    announce("check-env", {"environment": _name(settings.env)})
    findings = check_env(settings.env)
    for finding in findings:
        say(str(finding))
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise EnvError(f"{errors} thing{'s' if errors > 1 else ''} wrong with {_name(settings.env)}, listed above")
    say(f"nothing wrong with {_name(settings.env)}" + (", but see the warnings" if findings else ""))


def _name(config: EnvConfig) -> str:
    return str(getattr(config, "env_id", None) or type(config).__name__)
