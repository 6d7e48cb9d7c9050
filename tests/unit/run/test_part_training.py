"""Parts trained in lanes learn, to the bit, what they learn one after the other."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dima.run.optimize import PartOptimizer
from dima.run.part_training import GATHERED_UPDATES, PartTraining, batches, lanes_of
from tests.support.dima_models import lively_dima, make_spec
from worldmodel.config import OptimConfig
from worldmodel.contract.random_data import random_trajectory
from worldmodel.protocol import TrainablePart
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import LossOutput, Segment

SPEC = make_spec()
UPDATES = {"decoder": 3, "denoiser": GATHERED_UPDATES + 3, "reward_termination": 7}


def filled() -> Replay:
    replay = ReplayConfig(capacity=1000, recency="uniform").build(SPEC, 1, torch.device("cpu"))
    replay.append(random_trajectory(SPEC, 60, torch.Generator().manual_seed(1)))
    return replay


def train(
    *, parallel: bool, traced: Any = None, updates: dict[str, int] = UPDATES
) -> tuple[dict[str, Tensor], dict[str, list[dict[str, Tensor]]]]:
    """Weights after a short round of training, and what it reported."""
    model = lively_dima(SPEC, "denoiser.num_targets=3").train()
    torch.manual_seed(5)  # dropout
    optimizers = {name: PartOptimizer(name, part) for name, part in model.parts().items()}
    generators = {name: torch.Generator().manual_seed(i) for i, name in enumerate(optimizers)}
    metrics = PartTraining(optimizers, filled(), generators, parallel=parallel).run(updates, traced)
    return dict(model.state_dict()), metrics


def test_side_by_side_and_in_turn_are_the_same_to_the_bit() -> None:
    weights, metrics = train(parallel=False)
    weights_in_lanes, metrics_in_lanes = train(parallel=True)

    assert list(metrics) == list(metrics_in_lanes) == list(UPDATES)
    assert {name: len(rows) for name, rows in metrics_in_lanes.items()} == UPDATES
    for name, tensor in weights.items():
        assert torch.equal(tensor, weights_in_lanes[name]), name
    for name, rows in metrics.items():
        for row, other in zip(rows, metrics_in_lanes[name], strict=True):
            assert all(torch.equal(row[key], other[key]) for key in row)


def test_whoever_traces_sees_every_update_in_one_thread() -> None:
    seen: list[tuple[str, int]] = []

    def traced(name: str) -> AbstractContextManager[None]:
        seen.append((name, threading.get_ident()))
        return nullcontext()

    weights, _ = train(parallel=True, traced=traced)

    assert {thread for _, thread in seen} == {threading.get_ident()}
    assert {name: sum(n == name for n, _ in seen) for name in UPDATES} == UPDATES
    plain, _ = train(parallel=True)
    assert all(torch.equal(weights[name], plain[name]) for name in weights)


def test_tracing_changes_no_bit_where_torch_has_several_threads() -> None:
    """At sizes at which torch would share out a sum among its threads: lanes have one each, traced or not."""
    spec = make_spec(state_dim=17)

    def fit(traced: Any) -> dict[str, Tensor]:
        model = lively_dima(spec, preset="cpu").train()
        optimizers = {name: PartOptimizer(name, part) for name, part in model.parts().items()}
        generators = {name: torch.Generator().manual_seed(i) for i, name in enumerate(optimizers)}
        replay = ReplayConfig(capacity=1000, recency="uniform").build(spec, 1, torch.device("cpu"))
        replay.append(random_trajectory(spec, 60, torch.Generator().manual_seed(1)))
        training = PartTraining(optimizers, replay, generators, parallel=True)
        training.run(dict.fromkeys(optimizers, 2), traced)
        return dict(model.state_dict())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        plain, traced = fit(None), fit(lambda _: nullcontext())
    finally:
        torch.set_num_threads(before)
    for name, tensor in plain.items():
        assert torch.equal(tensor, traced[name]), name


def test_the_number_of_threads_is_what_it_was_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(parallel=True, updates=dict.fromkeys(UPDATES, 1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_batches_come_several_from_one_gather() -> None:
    """Every row of every batch is one that the replay drew, none twice, none left out."""
    part = lively_dima(SPEC).parts()["decoder"]
    replay, size, count = filled(), part.optim.batch_size, GATHERED_UPDATES + 5

    drawn = list(batches(replay, part, count, torch.Generator().manual_seed(3)))

    assert len(drawn) == count
    assert {batch.state.shape[0] for batch in drawn} == {size}
    generator = torch.Generator().manual_seed(3)
    whole = [
        replay.sample(n * size, part.segment_length, burn_in=part.burn_in, generator=generator)
        for n in (GATHERED_UPDATES, 5)
    ]
    for name, tensor in whole[0].tensors():
        expected = torch.cat([tensor, dict(whole[1].tensors())[name]])
        assert torch.equal(torch.cat([dict(batch.tensors())[name] for batch in drawn]), expected), name


class Scripted(TrainablePart):
    """Learns nothing; does what a test says at an update."""

    segment_length, burn_in = 1, 0

    def __init__(self, independent: bool, on_update: Any = lambda: None, loss: float = 0.0) -> None:
        super().__init__()
        self.independent, self.on_update, self.loss = independent, on_update, loss
        self.optim = OptimConfig(learning_rate=1e-3, weight_decay=0.0, grad_clip=1.0, batch_size=2)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        self.on_update()
        return LossOutput(self.weight.sum() + self.loss, {})


def run_scripted(parts: dict[str, Scripted], updates: int) -> None:
    optimizers = {name: PartOptimizer(name, part) for name, part in parts.items()}
    generators = {name: torch.Generator() for name in parts}
    PartTraining(optimizers, filled(), generators, parallel=True).run(dict.fromkeys(parts, updates))


def test_dependent_parts_share_a_lane_and_keep_their_order() -> None:
    parts: dict[str, TrainablePart] = {name: Scripted(name in "bd") for name in "abcd"}

    assert lanes_of(parts, parallel=True) == [["b"], ["d"], ["a", "c"]]
    assert lanes_of(parts, parallel=False) == [["a", "b", "c", "d"]]


def test_lanes_run_at_the_same_time() -> None:
    """Each waits for the other inside its first update: one after the other they would wait for ever."""
    barrier = threading.Barrier(2)
    parts = {name: Scripted(True, lambda: barrier.wait(timeout=60)) for name in "ab"}

    run_scripted(parts, updates=1)

    assert not barrier.broken


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_an_error_in_one_lane_ends_the_others(names: str) -> None:
    started = threading.Event()
    counted: list[int] = []

    def count() -> None:
        started.set()
        counted.append(1)

    def fail() -> None:
        started.wait(timeout=60)
        raise FloatingPointError("lane a")

    scripted = {"a": Scripted(True, fail), "b": Scripted(True, count)}
    with pytest.raises(FloatingPointError, match="lane a"):
        run_scripted({name: scripted[name] for name in names}, updates=100_000)

    assert 0 < len(counted) < 100_000


def test_a_bad_loss_names_its_part() -> None:
    with pytest.raises(FloatingPointError, match="world model part 'b'"):
        run_scripted({"a": Scripted(True), "b": Scripted(True, loss=float("nan"))}, updates=3)
