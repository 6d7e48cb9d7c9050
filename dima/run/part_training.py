"""The parts of a world model trained side by side: those that have nothing to do with each other, each in a lane.

A part draws its batches and its noise from a generator of its own, so what it learns does not depend on who else is
being trained at the time: lanes change how long a round takes and nothing else.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from dima.run.optimize import PartOptimizer
from worldmodel.protocol import TrainablePart
from worldmodel.replay import Replay
from worldmodel.types import Segment

GATHERED_UPDATES = 16
"""Batches that are drawn and gathered from the replay at once; a guess: enough to forget what one gather costs."""

Metrics = list[dict[str, Tensor]]


class PartTraining:
    """Takes every part of a world model through its updates, on batches from `replay`."""

    def __init__(
        self,
        optimizers: Mapping[str, PartOptimizer],
        replay: Replay,
        generators: Mapping[str, torch.Generator],
        *,
        parallel: bool,
    ) -> None:
        """`generators` by part; `parallel`: independent parts in threads (on a GPU: streams) of their own."""
        self._optimizers = optimizers
        self._replay = replay
        self._generators = generators
        self._lanes = lanes_of({name: optimizer.part for name, optimizer in optimizers.items()}, parallel=parallel)

    def run(
        self, updates: Mapping[str, int], traced: Callable[[str], AbstractContextManager[None]] | None = None
    ) -> dict[str, Metrics]:
        """Give each part its number of `updates`; returns each update's metrics, by part in the parts' order.

        `traced` is entered with a part's name around each of its updates; whoever traces sees all in one thread.

        Raises:
            FloatingPointError: naming the part, when a loss or gradient was not finite.
        """
        if len(self._lanes) == 1:
            return self._run_in_turn(updates, traced)
        with _one_thread_each():
            return self._run_in_turn(updates, traced) if traced is not None else self._run_in_lanes(updates)

    def _run_in_turn(
        self, updates: Mapping[str, int], traced: Callable[[str], AbstractContextManager[None]] | None
    ) -> dict[str, Metrics]:
        trace = traced or (lambda _: nullcontext())
        return {name: self._train(name, updates[name], trace) for name in self._optimizers}

    def _run_in_lanes(self, updates: Mapping[str, int]) -> dict[str, Metrics]:
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(len(self._lanes)) as pool:
            running = [pool.submit(self._run_lane, lane, updates, stop) for lane in self._lanes]
            try:
                concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_EXCEPTION)
            finally:
                stop.set()  # an error or Ctrl-C in one ends the others after their present update
            failed = [lane for lane in running if lane.done() and lane.exception() is not None]
            learned = {name: metrics for lane in failed or running for name, metrics in lane.result().items()}
        return {name: learned[name] for name in self._optimizers}

    def _run_lane(self, lane: list[str], updates: Mapping[str, int], stop: threading.Event) -> dict[str, Metrics]:
        device = self._replay.device
        with _stream_of_its_own(device):
            return {name: self._train(name, updates[name], lambda _: nullcontext(), stop) for name in lane}

    def _train(
        self,
        name: str,
        updates: int,
        traced: Callable[[str], AbstractContextManager[None]],
        stop: threading.Event | None = None,
    ) -> Metrics:
        optimizer, generator = self._optimizers[name], self._generators[name]
        metrics: Metrics = []
        for segment in batches(self._replay, optimizer.part, updates, generator):
            if stop is not None and stop.is_set():
                break
            with traced(name):
                metrics.append(optimizer.update(segment, generator))
        optimizer.require_finite()
        return metrics


def lanes_of(parts: Mapping[str, TrainablePart], *, parallel: bool) -> list[list[str]]:
    """Which parts are trained one after the other: each independent one alone, all others together and in order."""
    if not parallel:
        return [list(parts)]
    alone = [[name] for name, part in parts.items() if part.independent]
    together = [name for name, part in parts.items() if not part.independent]
    return [*alone, together] if together else alone


def batches(replay: Replay, part: TrainablePart, count: int, generator: torch.Generator) -> Iterator[Segment]:
    """`count` batches for `part`, several gathered at once."""
    size = part.optim.batch_size
    while count > 0:
        gathered = min(count, GATHERED_UPDATES)
        many = replay.sample(gathered * size, part.segment_length, burn_in=part.burn_in, generator=generator)
        for first in range(0, gathered * size, size):
            yield many[first : first + size]
        count -= gathered


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One thread of torch's for each lane: lanes that share out their sums among the same cores wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stream_of_its_own(device: torch.device) -> Iterator[None]:
    """On a GPU, a stream that begins behind all work so far and that later work waits for."""
    if device.type != "cuda":
        yield
        return
    main, own = torch.cuda.default_stream(device), torch.cuda.Stream(device)
    own.wait_stream(main)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        main.wait_stream(own)
