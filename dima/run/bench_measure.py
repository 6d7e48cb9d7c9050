"""A stage of `dima bench` and what is measured of it: its clocks beside a twin's, its work, its memory.

Knows nothing of what stages do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dima.run.bench_machine import Machine
from dima.run.bench_timing import Call, MemoryWatch, Timing, median, speedup, time_twins
from dima.run.bench_work import Counts, count_work

EAGER = "eager"


@dataclasses.dataclass(frozen=True)
class Twin:
    """Another way to do what a stage does, timed in turns with it."""

    name: str
    call: Call
    by_wall: bool = False
    """Whether wall time is what the two differ in, also on a CPU."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is timed."""

    name: str
    call: Call
    count: int
    """How many of `unit` one call does."""
    unit: str
    twin: Twin | None = None
    before: Callable[[], object] | None = None
    """What has to be done once before the first call."""
    after: Callable[[], object] | None = None
    """What has to be done once after the last call, also when one failed."""
    counted: Call | None = None
    """What is counted in place of a call that does its work in other threads or processes."""


@dataclasses.dataclass(frozen=True)
class Speedup:
    """How many times faster a stage is than its twin: medians over rounds, by each clock."""

    wall: float
    cpu: float
    decisive: float
    """The one that the twins are compared by."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came out for one stage."""

    stage: Stage
    timing: Timing
    counts: Counts
    rise_mb: float
    twin: Timing | None = None
    speedup: Speedup | None = None

    def as_json(self, machine: Machine, device: torch.device, *, is_bfloat16: bool) -> dict[str, Any]:
        """As bench.json has it under `stages`."""
        stage = self.stage
        record = {
            **_clocks(self.timing),
            "unit": stage.unit,
            "count": stage.count,
            "per_s": _rate(stage.count, self.timing.wall_s),
            "per_core_s": _rate(stage.count, self.timing.cpu_s),
            "flops": self.counts.flops,
            "bytes": self.counts.bytes,
            **machine.shares(self.counts, self.timing, device, is_bfloat16=is_bfloat16),
            "peak_memory_mb": round(self.rise_mb, 1),
        }
        if stage.twin is None or self.twin is None or self.speedup is None:
            return record
        return {
            **record,
            "twin": stage.twin.name,
            stage.twin.name: _clocks(self.twin),
            "speedup": round(self.speedup.decisive, 3),
            "speedup_wall": round(self.speedup.wall, 3),
            "speedup_cpu": round(self.speedup.cpu, 3),
        }


def measure_stage(stage: Stage, repeats: int, device: torch.device, memory: MemoryWatch) -> Measured:
    """Time `stage`, beside its twin where it has one; then run it once to count its work and once to see its memory."""
    try:
        if stage.before is not None:
            stage.before()
        return _measure(stage, repeats, device, memory)
    finally:
        if stage.after is not None:
            stage.after()


def _measure(stage: Stage, repeats: int, device: torch.device, memory: MemoryWatch) -> Measured:
    twin = stage.twin
    calls = {stage.name: stage.call} | ({twin.name: twin.call} if twin is not None else {})
    times = time_twins(calls, repeats, device)
    counts = count_work(stage.counted or stage.call)
    if counts.flops == 0 and twin is not None:  # a compiled call hides its products; its twin does not
        counts = count_work(twin.call)
    rise_mb = memory.rise_mb(stage.call)
    own = times[stage.name]
    if twin is None:
        return Measured(stage, median(own), counts, rise_mb)
    other = times[twin.name]
    return Measured(stage, median(own), counts, rise_mb, median(other), _speedup(twin, other, own, device))


def _speedup(twin: Twin, slow: Sequence[Timing], fast: Sequence[Timing], device: torch.device) -> Speedup:
    wall, cpu = (speedup(slow, fast, clock) for clock in ("wall", "cpu"))
    return Speedup(wall, cpu, wall if twin.by_wall or device.type == "cuda" else cpu)


def _clocks(timing: Timing) -> dict[str, float]:
    return {"ms": round(1e3 * timing.wall_s, 3), "cpu_ms": round(1e3 * timing.cpu_s, 3)}


def _rate(count: int, seconds: float) -> float:
    return round(count / max(seconds, 1e-9), 1)
