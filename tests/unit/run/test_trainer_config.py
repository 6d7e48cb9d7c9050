"""The loop's options: combinations that cannot run are refused before anything is done."""

from __future__ import annotations

import dataclasses

import pytest

from dima.run.trainer_config import TrainerConfig
from worldmodel.config import ConfigError

CONFIG = TrainerConfig(
    num_envs=1,
    collect_unit="steps",
    collect_steps=200,
    random_steps=0,
    deterministic_every=0,
    start_steps=1000,
    updates=10,
    first_updates=None,
    policy_start_round=1,
    policy_updates=4,
    eval_every=1000,
    eval_episodes=5,
    checkpoint_every=1000,
    keep_checkpoints=2,
)


def test_steps_are_shared_out_evenly_among_environments() -> None:
    assert dataclasses.replace(CONFIG, num_envs=8).num_envs == 8
    assert dataclasses.replace(CONFIG, num_envs=3, collect_unit="episodes").num_envs == 3
    with pytest.raises(ConfigError, match="collect_steps = 200: expected a multiple of num_envs = 3"):
        dataclasses.replace(CONFIG, num_envs=3)


def test_every_worker_has_an_environment() -> None:
    assert CONFIG.collect_workers == 0, "runs that were saved before there were workers are read"
    assert dataclasses.replace(CONFIG, num_envs=2, collect_workers=2).collect_workers == 2
    with pytest.raises(ConfigError, match="collect_workers = 3: expected at most num_envs = 2: each worker steps"):
        dataclasses.replace(CONFIG, num_envs=2, collect_workers=3)
    with pytest.raises(ConfigError, match="collect_workers = -1: expected at least 0"):
        dataclasses.replace(CONFIG, collect_workers=-1)


def test_updates_are_counted_by_part() -> None:
    config = dataclasses.replace(CONFIG, updates={"denoiser": 5}, first_updates=70)
    assert [config.num_updates("denoiser", training_round) for training_round in (1, 2, 3)] == [70, 5, 5]
    with pytest.raises(ConfigError, match="expected a number for the world model's part 'decoder'"):
        config.num_updates("decoder", 2)
