"""The loop's options: combinations that cannot run are refused before anything is done."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
import torch

from dima.run.steps_source import LocalSource
from dima.run.trainer_config import TrainerConfig
from envs.collector import Collector
from envs.random_agent import RandomAgent
from tests.support.point_team import PointTeamConfig
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


def test_a_small_run_holds_fewer_episodes_than_the_paper_has_between_updates_of_inference() -> None:
    assert CONFIG.num_episodes(12_000, 1000) == 12
    assert dataclasses.replace(CONFIG, num_envs=8).num_episodes(12_000, 1000) == 8  # 1500 steps in each
    assert CONFIG.num_episodes(800, 1000) == 0


@pytest.mark.parametrize(
    ("num_envs", "unit", "collect_steps", "env_steps"),
    [(1, "steps", 15, 100), (4, "steps", 24, 200), (1, "episodes", 15, 70), (3, "episodes", 70, 200)],
)
def test_as_many_episodes_are_expected_as_end(
    num_envs: int, unit: Literal["steps", "episodes"], collect_steps: int, env_steps: int
) -> None:
    config = dataclasses.replace(CONFIG, num_envs=num_envs, collect_unit=unit, collect_steps=collect_steps)
    env = PointTeamConfig(episode_steps=20)
    collector = Collector(env, num_envs, seed=0)
    agent = RandomAgent(collector.spec, torch.Generator())
    source = LocalSource(collector, {"random": agent}, unit, collect_steps)
    collected = ended = 0
    while collected < env_steps:
        collected += sum(trajectory.length for trajectory in source.collect("random"))
        ended += len(source.episodes)
    source.close()
    assert config.num_episodes(env_steps, 20) == ended


def test_updates_are_counted_by_part() -> None:
    config = dataclasses.replace(CONFIG, updates={"denoiser": 5}, first_updates=70)
    assert [config.num_updates("denoiser", training_round) for training_round in (1, 2, 3)] == [70, 5, 5]
    with pytest.raises(ConfigError, match="expected a number for the world model's part 'decoder'"):
        config.num_updates("decoder", 2)
