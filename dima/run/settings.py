"""The typed form of what the configuration files and the command line say, and how a saved one is read again.

After `read_settings` no Hydra or OmegaConf object is left: everything is a frozen dataclass that checked its values.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from yaml import YAMLError

from dima.run.engine import EngineConfig
from dima.run.inference_config import InferenceTrainingConfig
from dima.run.messages import nearest
from dima.run.runtime import DeviceChoice
from dima.run.tracking import TrackingConfig
from dima.run.trainer_config import TrainerConfig
from envs.base import EnvConfig
from imagination.mappo import BehaviourConfig
from worldmodel.config import Config, ConfigError
from worldmodel.protocol import WorldModelConfig
from worldmodel.replay import ReplayConfig

OWN_ON_RESUME = ("resume", "checkpoint")
"""Keys of `dima train` that say which run to go on with and are no part of the run itself."""

FREE_ON_RESUME = ("env_steps", "device", "num_threads", "trainer", "tracking", "profile", "engine")
"""What a resumed run may change: how far, where and how it goes on, but not what was learned so far."""

KEPT_ON_RESUME = ("trainer.num_envs", "trainer.collect_workers")
"""What a resumed run keeps of the rest: its episodes and random numbers are shared out by these."""


@dataclasses.dataclass(frozen=True)
class TrainSettings(Config):
    """Everything that `dima train` is told."""

    env: Any
    """An `EnvConfig`."""
    world_model: Any
    """A `WorldModelConfig`."""
    policy: BehaviourConfig
    """Actors, critic and how they learn from imagined rollouts."""
    trainer: TrainerConfig
    """The training loop."""
    replay: ReplayConfig
    """What is remembered."""
    tracking: TrackingConfig
    """Mirrors of the metrics."""
    seed: int
    """What every random number of the run is derived from."""
    env_steps: int
    """The total of real steps to reach."""
    device: DeviceChoice
    """Where networks and replay live."""
    num_threads: int | None
    """CPU threads of torch; null: the cores that the process may use, at most 4."""
    out: str | None
    """The run folder; null: a new one under runs/."""
    resume: str | None
    """A run folder to go on with."""
    checkpoint: int | str
    """Which checkpoint to go on from: `latest` or its env steps."""
    engine: EngineConfig = EngineConfig()  # noqa: RUF009
    """How it is computed (with a default, so that older runs can be read)."""
    profile: bool = False
    """Record one round operation by operation (False by default, so that older runs can be read)."""
    inference: InferenceTrainingConfig = InferenceTrainingConfig()  # noqa: RUF009
    """How states are inferred where a policy is fed with them (none by default, so that older runs can be read)."""

    def validate(self) -> None:
        """Refuse what cannot run."""
        self.require(self.seed >= 0, "seed", "at least 0")
        self.require(self.env_steps >= 1, "env_steps", "at least 1")
        self.require(self.num_threads is None or self.num_threads >= 1, "num_threads", "null or at least 1")
        is_env, is_model = isinstance(self.env, EnvConfig), callable(getattr(self.world_model, "build", None))
        self.require(is_env, "env", "a config with build(), named by env._target_")
        self.require(is_model, "world_model", "a config with build(spec), named by world_model._target_")
        self._require_use_of_inference()

    def _require_use_of_inference(self) -> None:
        kind = self.policy.policy.input
        if self.inference.run is not None and kind not in ("state", "obs+state"):
            raise ConfigError(
                f"inference.run = {self.inference.run!r}: the policy is fed with {kind}: no state is inferred for it;"
                " say policy.policy.input=state (or obs+state)"
            )

    @property
    def env_config(self) -> EnvConfig:
        """`env` by its type."""
        return self.env

    @property
    def world_model_config(self) -> WorldModelConfig:
        """`world_model` by its type."""
        return self.world_model


def read_settings(config: DictConfig) -> Any:
    """The settings object that `config` describes.

    Raises:
        ConfigError: naming the value that is missing, unknown or of the wrong type.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{missing[0]} has no value; give one: {missing[0]}=VALUE")
    _require_placed_presets(config)
    _require_config_classes(config)
    try:
        return instantiate(config, _convert_="object")
    except InstantiationException as error:
        raise ConfigError(_explain(error, config)) from error


def load_config(path: Path) -> DictConfig:
    """The configuration that a run saved.

    Raises:
        ConfigError: when the file is damaged or something else.
    """
    try:
        config = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig) or "_target_" not in config:
        raise ConfigError(
            f"{path} holds no run's configuration: expected a mapping with _target_, as dima train writes"
        )
    return config


def apply_overrides(config: DictConfig, overrides: Sequence[str], changeable: Sequence[str] = FREE_ON_RESUME) -> None:
    """Change values of a saved run's configuration in place, as a command line with resume=RUN says.

    Raises:
        ConfigError: when an override names something that is not there, or that a run keeps.
    """
    OmegaConf.set_struct(config, True)
    kept = [OmegaConf.select(config, key, default=_ABSENT) for key in KEPT_ON_RESUME]
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key in OWN_ON_RESUME:
            continue
        line = str(override.input_line)
        if key.split(".")[0] not in changeable:
            raise ConfigError(refused_on_resume(line, changeable))
        if override.is_delete() or OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            raise ConfigError(f"{override.input_line}: the saved run has no value {key!r} to change")
        with open_dict(config):
            OmegaConf.update(config, key, override.value(), merge=True)
        if kept != [OmegaConf.select(config, key, default=_ABSENT) for key in KEPT_ON_RESUME]:
            raise ConfigError(refused_on_resume(line, changeable, f", but neither {' nor '.join(KEPT_ON_RESUME)}"))


def refused_on_resume(line: str, changeable: Sequence[str], but: str = "; the rest a run keeps") -> str:
    """Why a resumed run does not take `line`."""
    return f"{line}: with resume=RUN only {', '.join(changeable)} may change{but}"


_ABSENT = object()


def _require_placed_presets(config: DictConfig) -> None:
    """Refuse a plug-in's preset that does not say where its values belong, so that Hydra put them elsewhere."""
    for group, place in (("world_model_preset", "world_model"), ("inference_preset", "inference")):
        if group in config:
            keys = ", ".join(config[group])
            raise ConfigError(f"the preset in {group}/ that sets {keys}: its first line must be: # @package {place}")


def _require_config_classes(config: DictConfig | ListConfig, where: str = "") -> None:
    """Let `_target_` name subclasses of `Config` only: a stranger's config.yaml must not be able to call anything else.

    Raises:
        ConfigError: naming the key, when a target cannot be imported or is something else.
    """
    entries = config.items() if isinstance(config, DictConfig) else enumerate(config)
    for key, value in entries:
        place = f"{where}{key}"
        if isinstance(value, (DictConfig, ListConfig)):
            _require_config_classes(value, f"{place}.")
        elif key == "_target_":
            target = _locate(place, str(value))
            if not (isinstance(target, type) and issubclass(target, Config)):
                raise ConfigError(f"{place} = {value}: expected a subclass of worldmodel.config.Config")


def _locate(place: str, dotted_name: str) -> Any:
    module, _, name = dotted_name.rpartition(".")
    if not module or not name:
        raise ConfigError(f"{place} = {dotted_name!r}: expected package.module.Class")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # importing a plug-in may raise anything
        text = " ".join(str(error).split())
        raise ConfigError(f"{place} = {dotted_name}: cannot be imported ({text})") from error


def _explain(error: BaseException, config: DictConfig) -> str:
    """The root of an error inside `instantiate`, with the place that Hydra knows."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = " ".join(str(root).split())
    for settings in ("TrainSettings.", "FitSettings.", "CollectSettings.", "PredictSettings."):
        text = text.removeprefix(settings)
    place = next((line.split(":", 1)[1].strip() for line in str(error).splitlines() if "full_key:" in line), "")
    where = f"in {place}: " if place else ""
    if isinstance(root, TypeError) and "unexpected keyword argument" in text:
        name = text.rsplit("'", 2)[-2]
        target = OmegaConf.select(config, f"{place}._target_" if place else "_target_")
        fields = [field.name for field in dataclasses.fields(_locate(place, str(target)))]
        return f"{where}unknown key {nearest(name, fields)}"
    if isinstance(root, TypeError) and "required" in text and "argument" in text:
        return f"{where}{text.split('__init__() ')[-1].replace('positional ', '')}"
    return f"{where}{text}"
