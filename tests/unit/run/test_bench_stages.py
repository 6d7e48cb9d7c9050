"""The stages that `dima bench` makes of a run's settings: what each call does, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from dima.run.assemble import Learner, build_learner
from dima.run.bench_measure import Stage
from dima.run.bench_stages import Bench, update_call
from dima.run.bench_timing import Prepared
from dima.run.optimize import PartOptimizer
from dima.run.part_training import GATHERED_UPDATES
from dima.run.settings import TrainSettings, read_settings
from envs.collector import Collector
from worldmodel.contract.random_data import random_trajectory
from worldmodel.replay import Replay, ReplayConfig

PARTS = ("decoder", "denoiser", "reward_termination")


def settings(*overrides: str) -> TrainSettings:
    with initialize_config_module("configs", version_base="1.3"):
        words = ["env=toy/linear", "preset=smoke", "device=cpu", "num_threads=1", *overrides]
        return read_settings(compose("train", words))


def filled(learner: Learner) -> Replay:
    replay = ReplayConfig(capacity=1000, recency="uniform").build(learner.spec, 1, torch.device("cpu"))
    replay.append(random_trajectory(learner.spec, 60, torch.Generator().manual_seed(1)))
    return replay


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    """Makes stages from their names and the settings."""
    collectors: list[Collector] = []

    def make(names: str, *overrides: str, compare_eager: bool = True) -> list[Stage]:
        chosen = settings(*overrides)
        learner = build_learner(chosen)
        collectors.append(Collector(chosen.env_config, chosen.trainer.num_envs, 0))
        bench = Bench(chosen, learner, filled(learner), collectors[-1], tmp_path, compare_eager)
        return bench.stages(names.split())

    yield make
    for collector in collectors:
        collector.close()


def test_an_update_has_its_share_of_the_batches_that_training_gathers_at_once(made: Any) -> None:
    for updates, gathered in ((200, GATHERED_UPDATES), (0, 1)):
        for stage in made("parts", f"trainer.updates={updates}"):
            assert isinstance(stage.call, Prepared)
            assert stage.call.serves == gathered


def test_one_update_learns_from_one_batch_of_those_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build_learner(settings())
    replay, part = filled(learner), learner.model.parts()["denoiser"]
    drawn: list[int] = []
    sample = replay.sample
    monkeypatch.setattr(replay, "sample", lambda size, *a, **kw: drawn.append(size) or sample(size, *a, **kw))
    optimizer = PartOptimizer("denoiser", part)
    update = update_call(optimizer, replay, torch.Generator(), gathered=6)
    update()
    update.call()
    assert drawn == [6 * part.optim.batch_size]
    assert optimizer.updates == 2


@pytest.mark.parametrize(("parallel", "twin"), [("true", "in_turn"), ("false", "in_lanes")])
def test_a_round_s_fitting_is_timed_as_the_engine_does_it_beside_the_other_way(
    made: Any, parallel: str, twin: str
) -> None:
    (stage,) = made("fit", f"engine.parallel_parts={parallel}", "trainer.updates=3", "trainer.first_updates=50")
    assert (stage.name, stage.count) == ("fit", 3 * len(PARTS))
    assert stage.twin.name == twin
    assert stage.twin.by_wall
    stage.before()
    learned = stage.call(), stage.twin.call()
    for metrics in learned:
        assert {name: len(rows) for name, rows in metrics.items()} == dict.fromkeys(PARTS, 3)


def test_packing_is_a_stage_where_the_engine_packs(made: Any) -> None:
    (stage,) = made("pack")
    first, second = stage.call(), stage.call()
    assert first is not second, "a copy every round"
    assert made("pack", "engine.imagination=eager") == []


def test_there_are_no_twins_where_none_are_asked_for(made: Any) -> None:
    stages = made("collect fit imagine", "trainer.collect_workers=1", compare_eager=False)
    assert [stage.twin for stage in stages] == [None] * 3


def test_workers_collect_whole_rounds_of_steps_beside_collecting_here(made: Any) -> None:
    words = ("trainer.num_envs=3", "trainer.collect_workers=2", "trainer.collect_unit=episodes")
    (stage,) = made("collect", *words)
    assert stage.count == 21, "20 steps do not divide among three environments"
    assert stage.twin.name == "in_process"
    (plain,) = made("collect")
    assert plain.twin is None
