"""Learning on beside a policy: which data the batches come from, when it is time, how fast, and what is measured."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.run.fit_settings import FitSettings
from dima.run.inference_config import InferenceTrainingConfig
from dima.run.inference_training import InferenceTraining
from dima.run.metrics import RoundMetrics
from dima.run.runtime import Randomness
from dima.run.step_back import SHARES
from dima.run.tracking import TrackingConfig
from tests.support.datasets import write_dataset
from tests.support.dima_models import make_spec
from tests.support.inference_models import inference_config, lively_inference
from tests.support.point_team import PointTeamConfig
from worldmodel.contract.random_data import random_trajectory
from worldmodel.history import segment_history
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import Segment

SPEC = make_spec()
CPU = torch.device("cpu")
OLD_STATES = 1000.0
"""Added to the states of the data that the inferencer was fitted on, so that a batch shows where it is from."""
RATE, FINAL = 0.02, 0.1
OPTIM = (f"optim.learning_rate={RATE}",)


@pytest.fixture
def old_data(tmp_path: Path) -> Path:
    """Four episodes, of which one is held out."""
    episodes = [random_trajectory(SPEC, 20, torch.Generator().manual_seed(seed)) for seed in range(4)]
    write_dataset(tmp_path / "old", SPEC, [dataclasses.replace(e, state=e.state + OLD_STATES) for e in episodes])
    return tmp_path / "old"


def fit_settings(data: Path) -> FitSettings:
    return FitSettings(
        world_model=None,
        data=str(data),
        env=PointTeamConfig(),
        held_out=0.25,
        train_steps=None,
        updates=10,
        final_learning_rate=FINAL,
        decay_from=0.5,
        log_every=10,
        held_out_batches=1,
        checkpoint_every=10,
        keep_checkpoints=2,
        tracking=TrackingConfig(False, "off", "dima", None, 1.0),
        seed=0,
        device="cpu",
        num_threads=1,
        out=None,
        resume=None,
        checkpoint="latest",
        inference=inference_config("mlp", *OPTIM),
    )


def begin(data: Path, **values: Any) -> InferenceTraining:
    """The training of an inferencer that looks fitted."""
    config = InferenceTrainingConfig(run="fit", name="mlp", fit=fit_settings(data), **values)
    training = InferenceTraining(config, SPEC, Randomness(0, CPU))
    training.load_weights(lively_inference(SPEC, "mlp", *OPTIM).state_dict())
    return training


def replay() -> Replay:
    replay = ReplayConfig(capacity=1000, recency="uniform").build(SPEC, 1, CPU)
    replay.append(random_trajectory(SPEC, 60, torch.Generator().manual_seed(9)))
    return replay


def learn(training: InferenceTraining, ended: int) -> dict[str, float]:
    """The metrics of one round in which `ended` episodes ended."""
    metrics = RoundMetrics(CPU)
    training.after_episodes(ended, replay(), metrics)
    return metrics.collect()


@pytest.mark.parametrize("rehearsal", [0.0, 0.25, 0.5, 1.0])
def test_rehearsal_is_the_share_of_batches_of_old_data(
    old_data: Path, rehearsal: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(old_data, every_episodes=1, updates=8, rehearsal=rehearsal)
    update, is_old = training.optimizer.update, list[bool]()

    def watched(batch: Segment, generator: torch.Generator) -> dict[str, Tensor]:
        seen = batch.state[batch.state_valid()] > OLD_STATES / 2
        assert bool(seen.all() | ~seen.any()), "a batch is of one kind"
        is_old.append(bool(seen.any()))
        return update(batch, generator)

    monkeypatch.setattr(training.optimizer, "update", watched)
    learn(training, 1)
    assert len(is_old) == 8
    assert [sum(is_old[i : i + 4]) for i in (0, 4)] == [4 * rehearsal] * 2, "spread evenly"


def test_episodes_are_counted_until_it_is_time(old_data: Path) -> None:
    training = begin(old_data, every_episodes=3, updates=2)
    updates = []
    for ended in (1, 1, 0, 2, 0, 1, 1):
        learn(training, ended)
        updates.append(training.optimizer.updates)
    assert updates == [0, 0, 0, 2, 2, 2, 4], "what is over counts towards the next time"
    learn(training, 2)
    other = begin(old_data, every_episodes=3, updates=2)
    other.load_state_dict(copy.deepcopy(training.state_dict()))
    assert (other.episodes, other.optimizer.updates) == (2, 4)
    learn(other, 1)
    assert (other.episodes, other.optimizer.updates) == (0, 6)


def test_an_inferencer_that_stays_as_it_was_needs_no_data(tmp_path: Path) -> None:
    training = begin(tmp_path / "nowhere", every_episodes=1, updates=0)
    assert learn(training, 5) == {}


def test_the_learning_rate_is_that_which_the_fit_ended_with(old_data: Path) -> None:
    training = begin(old_data, every_episodes=1, updates=1, old_tolerance=None)
    before = {name: p.detach().clone() for name, p in training.inference.named_parameters()}
    learn(training, 1)
    after = {name: p.detach() for name, p in training.inference.named_parameters() if "bias" in name}
    moved = [(bias - before[name]).abs().max() for name, bias in after.items()]
    # Adam's first step is the learning rate, whatever the gradient.
    assert float(torch.stack(moved).max()) == pytest.approx(RATE * FINAL, rel=1e-2)


def test_the_error_on_new_states_is_measured_before_the_update(old_data: Path) -> None:
    training = begin(old_data, every_episodes=1, updates=5, rehearsal=0.0, old_tolerance=None)
    twin = begin(old_data, every_episodes=1, updates=5, rehearsal=0.0)
    figures = learn(training, 1)
    before, after = new_error(twin), new_error(training)
    assert figures["inference/new_error_before"] == pytest.approx(before, rel=1e-5)
    assert abs(after - before) > 1e-3 * before
    assert figures["inference/old_error"] > 1e3, "the held-out states are old ones, far from all that was learned"


TOLERANCE = 1e-4


def test_old_states_are_inferred_no_worse_than_by_the_fit(old_data: Path) -> None:
    """New states alone, learned with a rate so high that unguarded the old ones get worse at once."""
    told: dict[str, Any] = {"every_episodes": 1, "updates": 20, "rehearsal": 0.0, "learning_rate": 30.0}
    free, guarded = begin(old_data, **told, old_tolerance=None), begin(old_data, **told, old_tolerance=TOLERANCE)
    old = guarded._checked
    assert old is not None
    fitted = guarded._error(old)
    learn(free, 1)
    assert free._error(old) > fitted * (1 + TOLERANCE)
    kept = []
    for _ in range(3):
        kept.append(learn(guarded, 1)["inference/kept_step"])
        assert guarded._error(old) <= fitted * (1 + TOLERANCE)
    assert all(share in (0.0, *SHARES) for share in kept)
    assert min(kept) < 1


def test_a_resumed_guard_still_compares_with_the_fit(old_data: Path) -> None:
    told: dict[str, Any] = {"every_episodes": 1, "updates": 5, "rehearsal": 1.0, "learning_rate": 30.0}
    training, resumed = begin(old_data, **told), begin(old_data, **told)
    learn(training, 1)
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    assert resumed._fitted_error is not None
    assert resumed._fitted_error == training._fitted_error


def new_error(training: InferenceTraining) -> float:
    """By hand: the regression's squared error, in standard deviations, at the states that are measured."""
    inference = training.inference
    generator = Randomness(0, CPU).fresh("inference/measured")
    segment = replay().sample(512, inference.segment_length, burn_in=inference.burn_in, generator=generator)
    history, true = segment_history(segment, 3), segment.state[:, 3]
    errors = []
    for agent in range(SPEC.num_agents):
        x, s = inference.standardized(history, true, torch.full((512,), agent))
        with torch.no_grad():
            answer = inference.law.sample(x, torch.zeros(512, 0))
        errors.append((answer - s).square().mean())
    return float(torch.stack(errors).mean())
