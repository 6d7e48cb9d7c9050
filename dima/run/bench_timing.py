"""How a call is measured for `dima bench`: its time beside its twins', and its memory; `bench_work` counts its work.

Knows nothing of what the calls do.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch

Call = Callable[[], object]
KeyT = TypeVar("KeyT")


@dataclasses.dataclass(frozen=True)
class Timing:
    """One call, or the median of several: wall-clock seconds, and seconds of CPU time over all threads of the process.

    Living worker processes that `multiprocessing` started count as threads, where the system is Linux.
    """

    wall_s: float
    cpu_s: float

    def cost_s(self, device: torch.device) -> float:
        """What is compared: CPU time on a CPU, which other jobs on the machine hardly change; wall time on a GPU."""
        return self.wall_s if device.type == "cuda" else self.cpu_s


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A call that needs a preparation, which serves `serves` calls: each is timed with its share of it."""

    prepare: Call
    call: Call
    serves: int

    def __call__(self) -> None:
        """Do both."""
        self.prepare()
        self.call()


def time_call(call: Call, device: torch.device) -> Timing:
    """Run `call` once, to the end of its work on the device."""
    if isinstance(call, Prepared):
        before, own = time_call(call.prepare, device), time_call(call.call, device)
        return Timing(own.wall_s + before.wall_s / call.serves, own.cpu_s + before.cpu_s / call.serves)
    wall, cpu = time.perf_counter(), _cpu_s()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Timing(time.perf_counter() - wall, max(0.0, _cpu_s() - cpu))


def _cpu_s() -> float:
    """CPU time so far of this process and its living workers, in seconds."""
    workers = 0.0
    for worker in multiprocessing.active_children():
        # clock_getcpuclockid(3), which Python lacks; a worker may end at any time, and other systems count otherwise.
        with contextlib.suppress(OSError):
            workers += time.clock_gettime(~(worker.pid or 0) << 3 | 2)
    return time.process_time() + workers


def time_twins(calls: Mapping[KeyT, Call], repeats: int, device: torch.device) -> dict[KeyT, list[Timing]]:
    """Time all of `calls`, one after the other in every round, so that a machine that becomes slower does so for all.

    The first round warms up and does not count; `repeats` rounds follow.
    """
    times: dict[KeyT, list[Timing]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            timing = time_call(call, device)
            if repeat > 0:
                times[name].append(timing)
    return times


def median(timings: Sequence[Timing]) -> Timing:
    """The median of each clock."""
    return Timing(statistics.median(t.wall_s for t in timings), statistics.median(t.cpu_s for t in timings))


def speedup(slow: Sequence[Timing], fast: Sequence[Timing], clock: Literal["wall", "cpu"]) -> float:
    """The median over rounds of how many times longer `slow` took than `fast` in the same round."""
    pairs = [(getattr(a, f"{clock}_s"), getattr(b, f"{clock}_s")) for a, b in zip(slow, fast, strict=True)]
    return statistics.median(a / max(b, 1e-9) for a, b in pairs)


class MemoryWatch:
    """How far calls drive up the memory of this process, or on a GPU what torch has allocated there."""

    def __init__(self, device: torch.device) -> None:
        """Start watching; nothing is reset before the first `rise`."""
        self._device = device
        self._highest_kb = 0
        self._highest_on_device = 0

    def rise_mb(self, call: Call) -> float:
        """Most memory (MiB) held at any time during `call` beyond what was held before it."""
        gc.collect()
        if self._device.type == "cuda":
            self._highest_on_device = max(self._highest_on_device, torch.cuda.max_memory_allocated(self._device))
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
            call()
            torch.cuda.synchronize(self._device)
            return (torch.cuda.max_memory_allocated(self._device) - before) / 2**20
        _give_back_freed()
        before = resident_kb()
        self._reset_highest()
        call()
        return max(0, _highest_kb() - before) / 1024

    def peak_mb(self) -> dict[str, float | None]:
        """Most memory held so far: by the process, and by torch on the GPU (None without one)."""
        host = max(self._highest_kb, _highest_kb()) / 1024
        if self._device.type != "cuda":
            return {"host": round(host, 1), "device": None}
        on_device = max(self._highest_on_device, torch.cuda.max_memory_allocated(self._device))
        return {"host": round(host, 1), "device": round(on_device / 2**20, 1)}

    def _reset_highest(self) -> None:
        self._highest_kb = max(self._highest_kb, _highest_kb())
        # Linux forgets the highest resident size on this; elsewhere only new heights of the whole process are seen.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def resident_kb() -> int:
    """Resident memory of this process now, in KiB; where /proc is missing, the highest so far."""
    return _status_kb("VmRSS")


def _highest_kb() -> int:
    return _status_kb("VmHWM")


def _status_kb(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _give_back_freed() -> None:
    """Let the C library return freed memory to the system, so that what is held is what is used."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc has no such call
        ctypes.CDLL(None).malloc_trim(0)
