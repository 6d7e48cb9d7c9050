"""Every YAML file composes into typed objects with no key that nobody reads; every preset says only what it changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

import configs
from dima.run.hydra_app import split_flags
from dima.run.settings import TrainSettings, read_settings
from dima.run.trainer_config import TrainerConfig
from worldmodel.config import Config, ConfigError

FOLDER = Path(configs.__file__).parent
COMMANDS = sorted(file.stem for file in FOLDER.glob("*.yaml"))
PRESETS = sorted(file.stem for file in FOLDER.glob("preset/*.yaml"))
NEEDS_A_NAME = {"env/custom", "env/pettingzoo", "world_model/custom"}
"""Files that leave a name for the user to fill in."""


def names(group: str) -> list[str]:
    return sorted(str(file.relative_to(FOLDER).with_suffix("")) for file in (FOLDER / group).rglob("*.yaml"))


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        return compose(name, list(overrides))


def built(config: DictConfig) -> Any:
    """The typed object; refuses unknown keys, missing ones and wrong types on the way."""
    return read_settings(config)


def group_object(name: str) -> Any:
    """What one file of a group describes by itself."""
    config: Any = composed(name)
    for part in name.split("/")[:-1]:
        config = config[part]
    return built(config)


@pytest.mark.parametrize(
    "name",
    [
        name
        for group in ("env", "policy", "replay", "tracking", "trainer", "world_model")
        for name in names(group)
        if name not in NEEDS_A_NAME and not name.endswith("/base")
    ],
)
def test_every_group_file_builds_its_config(name: str) -> None:
    assert isinstance(group_object(name), Config)


@pytest.mark.parametrize("name", sorted(NEEDS_A_NAME))
def test_files_to_fill_in_say_which_name_is_missing(name: str) -> None:
    with pytest.raises(ConfigError, match="has no value; give one: "):
        group_object(name)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_and_brings_no_key_that_nobody_reads(preset: str) -> None:
    assert isinstance(built(composed("train", f"preset={preset}")), TrainSettings)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_and_explains_itself(command: str) -> None:
    with initialize_config_module("configs", version_base="1.3"):
        config = compose(command, return_hydra_config=True)
    assert "Examples" in config.hydra.help.template
    assert config.hydra.help.app_name == f"dima {command.replace('_', '-')}"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command in ("evaluate", "play", "check_env")])
def test_commands_have_no_key_that_their_settings_lack(command: str) -> None:
    overrides = ["run=somewhere"] if command != "check_env" else []
    settings = built(composed(command, *overrides))
    chosen = {"env"} if command == "play" else set()  # a group without a choice: a run has its own, a script needs one
    assert {field.name for field in dataclasses.fields(settings)} == set(composed(command)) - {"_target_"} | chosen


def test_the_command_line_overrides_the_preset_and_the_preset_the_groups() -> None:
    smoke = composed("train", "preset=smoke")
    paper = composed("train", "preset=paper")
    assert smoke.trainer.updates != paper.trainer.updates
    assert smoke.env_steps != paper.env_steps
    assert smoke.world_model.denoiser.channels != paper.world_model.denoiser.channels
    changed = composed("train", "preset=smoke", "trainer.updates=17", "world_model.denoiser.channels=[8,8,8]")
    assert changed.trainer.updates == 17
    assert changed.world_model.denoiser.channels == [8, 8, 8]


def test_a_model_without_presets_composes_with_any_preset() -> None:
    target = "tests.support.linear_model.LinearModelConfig"
    config = composed("train", "world_model=custom", f"world_model._target_={target}", "preset=cpu")
    assert OmegaConf.to_container(config.world_model) == {"_target_": target}
    assert type(built(config).world_model).__qualname__ == "LinearModelConfig"


def test_the_paper_s_loop_is_the_paper_s() -> None:
    """Table 4 of arXiv 2505.20922, and the published code where the paper is silent."""
    trainer = built(composed("train", "preset=paper")).trainer
    assert isinstance(trainer, TrainerConfig)
    assert (trainer.collect_unit, trainer.collect_steps, trainer.start_steps) == ("steps", 200, 5000)
    assert (trainer.updates, trainer.policy_updates, trainer.policy_start_round) == (200, 4, 10)
    assert built(composed("train", "preset=published")).trainer.policy_updates == 5
    assert built(composed("train", "preset=published")).trainer.collect_unit == "episodes"


def test_a_preset_says_how_often_inference_learns_beside_a_policy() -> None:
    """No run of preset=cpu holds the paper's 50 episodes; the fit of an inferencer is another matter."""
    said = {preset: built(composed("train", f"preset={preset}")).inference.every_episodes for preset in PRESETS}
    assert said == {"cpu": 2, "smoke": 1, "paper": 50, "published": 50}
    assert composed("train", "preset=cpu", "inference.every_episodes=7").inference.every_episodes == 7
    assert "inference" not in composed("fit", "preset=cpu")


def trainer_config(**changes: Any) -> TrainerConfig:
    plain: Any = OmegaConf.to_container(composed("train", "preset=paper").trainer)
    plain.pop("_target_")
    return TrainerConfig(**(plain | changes))


def test_updates_by_part_and_a_longer_first_round() -> None:
    config = trainer_config(updates={"denoiser": 40, "decoder": 10}, first_updates=400)
    assert [config.num_updates("denoiser", training_round) for training_round in (1, 2, 3)] == [400, 40, 40]
    assert config.num_updates("decoder", 2) == 10
    with pytest.raises(ConfigError, match="expected a number for the world model's part 'reward'"):
        config.num_updates("reward", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"collect_steps": 0}, "collect_steps = 0"),
        ({"num_envs": 3}, "collect_steps = 200: expected a multiple of num_envs = 3"),
        ({"collect_unit": "rounds"}, "expected one of steps, episodes"),
        ({"updates": {"denoiser": -1}}, "updates"),
        ({"keep_checkpoints": 1}, "at least 2"),
        ({"eval_every": 2.5}, "expected int"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer_config(**changes)


def test_flags_and_values_may_be_mixed() -> None:
    assert split_flags(["a=1", "-m", "b=2,3", "--config-dir", "mine", "~c"]) == (
        ["-m", "--config-dir", "mine"],
        ["a=1", "b=2,3", "~c"],
    )
    assert split_flags(["--cfg", "job", "--config-dir=mine"]) == (["--cfg", "job", "--config-dir=mine"], [])


def test_a_key_that_nobody_reads_is_refused() -> None:
    """What the tests above rely on."""
    config = composed("train", "+policy.critic.depth=3")
    with pytest.raises(ConfigError, match="in policy.critic: unknown key 'depth'"):
        built(config)
