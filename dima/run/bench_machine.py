"""What this machine can do at most, measured: the roofline that `dima bench` compares stages with.

The matrix rate is that of one large square product, the memory bandwidth that of STREAM's triad on arrays far larger
than any cache. Both are the best of several tries: a machine is not faster than its best.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from dima.run.bench_timing import Timing, time_call
from dima.run.bench_work import Counts

_LONG_ENOUGH_S = 0.05
_SMALLEST, _LARGEST = 256, 8192
_TRIAD_BYTES = 2**27
"""Bytes of each of the three arrays: 128 MiB is beyond the caches of nearly all of today's processors and GPUs."""
_TRIES = 4


@dataclasses.dataclass(frozen=True)
class Machine:
    """The best rates seen. On a CPU they are per second of CPU time, so that other jobs hardly matter."""

    matrix_gflops: float
    """10^9 floating-point operations per second in float32, a multiply-add counting as two."""
    memory_gb_per_s: float
    """10^9 bytes per second, two arrays read and one written."""
    threads: int
    """CPU threads of torch."""
    matrix_gflops_bfloat16: float | None = None
    """The same in bfloat16, where that was asked for."""

    def as_json(self) -> dict[str, Any]:
        """As bench.json has it."""
        fields = dataclasses.asdict(self)
        return {name: round(value, 2) for name, value in fields.items() if value is not None}

    def shares(self, counts: Counts, timing: Timing, device: torch.device, *, is_bfloat16: bool) -> dict[str, float]:
        """Which share of the matrix rate and of the memory bandwidth a call reached that took `timing`."""
        seconds = max(timing.cost_s(device), 1e-9)
        gflops = self.matrix_gflops_bfloat16 if is_bfloat16 and self.matrix_gflops_bfloat16 else self.matrix_gflops
        return {
            "share_of_matrix_rate": _rounded(counts.flops / seconds / (1e9 * gflops)),
            "share_of_bandwidth": _rounded(counts.bytes / seconds / (1e9 * self.memory_gb_per_s)),
        }


def measure_machine(device: torch.device, *, with_bfloat16: bool) -> Machine:
    """Measure the rates of `device` with torch's current number of threads, in about a second."""
    return Machine(
        matrix_gflops=_matrix_gflops(device, torch.float32),
        memory_gb_per_s=_memory_gb_per_s(device),
        threads=torch.get_num_threads(),
        matrix_gflops_bfloat16=_matrix_gflops(device, torch.bfloat16) if with_bfloat16 else None,
    )


def _matrix_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Sizes double until one product takes long enough to be neither overhead nor luck."""
    best, size = 0.0, _SMALLEST
    while True:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        costs = [time_call(lambda: torch.mm(a, b, out=out), device).cost_s(device) for _ in range(_TRIES)]  # noqa: B023
        cost = max(min(costs), 1e-9)
        best = max(best, 2e-9 * size**3 / cost)
        if cost >= _LONG_ENOUGH_S or size >= _LARGEST:
            return best
        size *= 2


def _memory_gb_per_s(device: torch.device) -> float:
    a, b, c = (torch.ones(_TRIAD_BYTES // 4, device=device) for _ in range(3))
    costs = [time_call(lambda: torch.add(a, b, alpha=3.0, out=c), device).cost_s(device) for _ in range(_TRIES)]
    return 3e-9 * _TRIAD_BYTES / max(min(costs), 1e-9)


def _rounded(share: float) -> float:
    """To three significant digits."""
    return share if share == 0 or not math.isfinite(share) else round(share, 2 - math.floor(math.log10(abs(share))))
