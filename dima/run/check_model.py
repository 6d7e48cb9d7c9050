"""`dima check-model`: tells the author of a world model which points of the contract it does not keep."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dima.run.console import announce, say, warn
from dima.run.hydra_app import run_app
from dima.run.settings import read_settings
from envs.base import EnvConfig
from worldmodel.config import Config, ConfigError
from worldmodel.contract.checks import CHECKS, FIRST
from worldmodel.contract.findings import Finding, broken_checks, summarize
from worldmodel.contract.purity_checks import ignores_actions
from worldmodel.contract.subject import Subject
from worldmodel.protocol import WorldModelConfig
from worldmodel.types import EnvSpec

MADE_UP = (
    EnvSpec("two equal agents", 2, 4, obs_sizes=(3, 3), action_sizes=(2, 2), episode_steps=20),
    EnvSpec("three unequal agents with ids", 3, 5, (2, 4, 3), (1, 3, 2), episode_steps=20, appends_agent_id=True),
    EnvSpec("six agents", 6, 3, obs_sizes=(2,) * 6, action_sizes=(1,) * 6, episode_steps=20, appends_agent_id=True),
)
"""Between them they have what tasks differ in: padding, agent ids, and more agents than numbers in the state."""

_OF_TRAINING = ("trainer", "policy", "env_steps", "replay", "engine", "profile", "num_threads")
"""What a preset says that plays no part here."""


@dataclasses.dataclass(frozen=True)
class CheckModelSettings(Config):
    """Everything that `dima check-model` is told."""

    world_model: Any
    """A `WorldModelConfig`."""
    env: Any
    """An `EnvConfig` whose sizes to check for; None: those of `MADE_UP`."""
    stochastic: bool
    """False: the model predicts the same whatever it draws."""
    dead_parameters: tuple[str, ...]
    """Parameters without a gradient, on purpose."""
    checks: tuple[str, ...] | None
    """Names of checks; None: all."""

    def validate(self) -> None:
        """Refuse what builds no model, and unknown checks."""
        self.require(callable(getattr(self.world_model, "build", None)), "world_model", "a config with build(spec)")
        self.require(self.env is None or isinstance(self.env, EnvConfig), "env", "a config with build(), or null")
        known = self.checks is None or set(self.checks) <= set(CHECKS)
        self.require(known, "checks", f"null or some of {', '.join(CHECKS)}")


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("check_model", check)


def check(config: DictConfig) -> None:
    """Check the model that `config` names and print every finding.

    Raises:
        ConfigError: when a point of the contract is not kept.
    """
    OmegaConf.set_struct(config, False)
    for key in _OF_TRAINING:
        config.pop(key, None)
    if "_target_" not in (config.env or {}):
        config.env = None  # what a preset says of tasks, and no task
    settings: CheckModelSettings = read_settings(config)
    name = type(settings.world_model).__name__
    specs = MADE_UP if settings.env is None else (_spec_of(settings.env),)
    checks = tuple(CHECKS) if settings.checks is None else settings.checks
    announce("check-model", {"model": name, "tasks": ", ".join(spec.env_id for spec in specs), "checks": len(checks)})
    found: list[tuple[str, Finding]] = []
    for spec in specs:
        found += [(spec.env_id, finding) for finding in _check_for(settings, settings.world_model, spec, checks)]
    for text in summarize(found, len(specs)):
        say(f"\n{text}")
    if found:
        broken = dict.fromkeys(finding.check for _, finding in found)
        raise ConfigError(f"{name} does not keep the contract in {', '.join(broken)}: see above")
    say(f"{name} keeps the contract; next: dima train with the same world_model=.. and preset=smoke")


def _check_for(
    settings: CheckModelSettings, model: WorldModelConfig, spec: EnvSpec, checks: tuple[str, ...]
) -> list[Finding]:
    """Say how many checks the model passes for one environment; return what is wrong."""
    subject = Subject(
        lambda: model.build(spec),
        spec,
        stochastic=settings.stochastic,
        dead_parameters=settings.dead_parameters,
    )
    found = list(broken_checks(subject, checks))
    if any(finding.check == FIRST.name for finding in found):
        say(f"{spec.env_id}: not checked")
        return found
    can_step = not any(finding.check == "shapes" or finding.place for finding in found)
    if can_step and ignores_actions(subject):
        warn(f"{spec.env_id}: no prediction of a step changes with the actions: policies have nothing to learn from it")
    untrained = not found and not subject.learns
    note = "; the model has no parameters: nothing was asked of its training" if untrained else ""
    say(f"{spec.env_id}: {len(checks) - len(found)} of {len(checks)} checks passed{note}")
    return found


def _spec_of(config: EnvConfig) -> EnvSpec:
    with closing(config.build()) as env:
        return env.spec
