"""Averages of what a round measured, kept on the device until the round is over: one host synchronisation a round."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


class RoundMetrics:
    """Collects named scalars, plain or on a device, and the time that each stage took."""

    def __init__(
        self, device: torch.device, trace: Callable[[str], AbstractContextManager[None]] | None = None
    ) -> None:
        """Start empty; `device` is waited for where a stage's time is taken, and `trace` is entered with its name."""
        self._device = device
        self._trace = trace or (lambda _: nullcontext())
        self._tensors: dict[str, list[Tensor]] = {}
        self._numbers: dict[str, float] = {}

    def add(self, prefix: str, metrics: Mapping[str, Tensor]) -> None:
        """Take in detached scalar tensors; each name's mean over the round is reported as `prefix/name`."""
        for name, value in metrics.items():
            self._tensors.setdefault(f"{prefix}/{name}" if prefix else name, []).append(value)

    def put(self, name: str, value: float) -> None:
        """Set one plain number."""
        self._numbers[name] = value

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes, device included, to `time/NAME_s`."""
        self._wait()
        began = time.perf_counter()
        with self._trace(name):
            yield
        self._wait()
        key = f"time/{name}_s"
        self._numbers[key] = self._numbers.get(key, 0.0) + time.perf_counter() - began

    def traced(self, name: str) -> AbstractContextManager[None]:
        """A step within a timed stage, worth a name of its own to whoever traces the round; not timed here."""
        return self._trace(name)

    def collect(self) -> dict[str, float]:
        """All numbers by name; synchronises with the device once.

        Raises:
            FloatingPointError: naming a figure that is not finite.
        """
        names = list(self._tensors)
        if not names:
            return dict(self._numbers)
        means = [torch.stack(self._tensors[name]).to(self._device, torch.float32).mean() for name in names]
        figures = dict(zip(names, torch.stack(means).tolist(), strict=True))
        for name, value in figures.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value}")
        return {**self._numbers, **figures}

    def seconds(self, name: str) -> float:
        """What `timed` has added up for a stage."""
        return self._numbers.get(f"time/{name}_s", 0.0)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
