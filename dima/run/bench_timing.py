"""How a call is measured for `dima bench`: its time beside its twins', its arithmetic and traffic, its memory.

Knows nothing of what the calls do.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Call = Callable[[], object]
KeyT = TypeVar("KeyT")


@dataclasses.dataclass(frozen=True)
class Timing:
    """One call, or the median of several: wall-clock seconds, and seconds of CPU time over all threads of the process.

    Worker processes' CPU time is not in it.
    """

    wall_s: float
    cpu_s: float

    def cost_s(self, device: torch.device) -> float:
        """What is compared: CPU time on a CPU, which other jobs on the machine hardly change; wall time on a GPU."""
        return self.wall_s if device.type == "cuda" else self.cpu_s


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one call computes and moves."""

    flops: int
    """Floating-point operations of matrix products, convolutions and attention, a multiply-add counting as two."""
    bytes: int
    """What goes into and out of its operations, each tensor once an operation; views are free."""


def time_call(call: Call, device: torch.device) -> Timing:
    """Run `call` once, to the end of its work on the device."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


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


def speedup(slow: Sequence[Timing], fast: Sequence[Timing], device: torch.device) -> float:
    """The median over rounds of how many times longer `slow` took than `fast` in the same round."""
    pairs = zip(slow, fast, strict=True)
    return statistics.median(a.cost_s(device) / max(b.cost_s(device), 1e-9) for a, b in pairs)


def count_work(call: Call) -> Counts:
    """Run `call` once more, slowly, and count what its operations do."""
    flops = FlopCounterMode(display=False, custom_mapping=_NOT_IN_TORCH)
    flops.mod_tracker = _NoModules()  # type: ignore[assignment]
    traffic = _Traffic()
    with traffic, flops:
        call()
    return Counts(int(flops.get_total_flops()), traffic.bytes)


class _NoModules:
    """In the place of torch's module tracker, which asks views of parameters for a gradient that they do not have."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _product_flops(total: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch's table has the attention kernels of GPUs only, and no product that adds in place (seen in 2.13).
_NOT_IN_TORCH: dict[Any, Any] = {
    torch.ops.aten.addmm_: _product_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


_LOOK_UPS = {"index", "index_select", "gather", "embedding"}
_ENTRIES = {"index_put", "index_put_", "_index_put_impl_"}
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write, as if each went to memory and back.

    Operations that a compiler has fused show what they still read and write; caches are not considered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1] if "." in str(func) else str(func)
        if name in _LOOK_UPS:  # reads of its source only what it returns
            self.bytes += 2 * _num_bytes(out) + _num_bytes(args[1:])
        elif name in _ENTRIES:  # writes of its target only what it is given
            self.bytes += 2 * _num_bytes(args[2:]) + _num_bytes(args[1])
        elif not getattr(func, "is_view", False) and name not in _FREE:
            self.bytes += _num_bytes((args, kwargs)) + _written(func, args, out)
        return out


def _written(func: Any, args: Any, out: Any) -> int:
    """Bytes of what an operation writes: the arguments it changes, or else its results."""
    schema = getattr(func, "_schema", None)
    changed = [] if schema is None else [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    if any(changed):
        return sum(_num_bytes(value) for value, is_changed in zip(args, changed, strict=False) if is_changed)
    return _num_bytes(out)


def _num_bytes(tree: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    # An expanded tensor is no larger than what lies behind it.
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


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
