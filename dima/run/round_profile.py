"""`dima train profile=true`: one round of training, recorded operation by operation, as RUN/profile/.

`trace.json.gz` opens in chrome://tracing or ui.perfetto.dev: every step of the round as a span, and inside the first
few of each stage every operation. `summary.txt` has each stage's most expensive operations. Recording draws no random
number and changes no result, only its round is slower. Told where steps begin and end, it knows nothing of the loop.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from worldmodel.atomic import write_whole, write_whole_binary

RECORDED = 2
"""Steps of each stage that are recorded in full: a round repeats them hundreds of times."""

HOLDS_OTHERS = "world_model"
"""Not a stage of its own: the parts' steps are inside."""

SPAN_ONLY = "evaluate"
"""Its episodes would be most of the file."""

_ROWS = 15
_SPANS_PROCESS = "stages of the round"


class RoundProfile:
    """Records one round in which the policy learns: the second of this process, or the last if it has only one."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Write into `folder`, which is made when there is something to write."""
        self.folder = folder
        self._device = device
        self._rounds_learned = 0
        self._is_recording = False
        self._is_written = False
        self._steps: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._spans: list[dict[str, Any]] = []
        self._recorded: list[tuple[str, profile]] = []
        # Kineto reports each start and stop on stderr unless told not to before the first.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")

    @property
    def is_written(self) -> bool:
        """Whether a round has been recorded and lies in the folder."""
        return self._is_written

    @property
    def is_recording(self) -> bool:
        """Whether the present round is the one."""
        return self._is_recording

    def begin_round(self, *, learns: bool, is_last: bool) -> None:
        """A round begins; `learns`: the policy will learn in it. The first one pays for what is made once."""
        self._is_recording = learns and not self._is_written and (self._rounds_learned > 0 or is_last)
        self._rounds_learned += learns

    def end_round(self) -> None:
        """The round is over: write what was recorded, if it was recorded."""
        if self._is_recording:
            self._is_recording, self._is_written = False, True
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "summary.txt", self._summary())
            content = json.dumps(self._merged(), separators=(",", ":")).encode()
            write_whole_binary(self.folder / "trace.json.gz", lambda file: file.write(gzip.compress(content, 6)))
            self._spans, self._recorded = [], []

    @contextmanager
    def step(self, stage: str) -> Iterator[None]:
        """One step of `stage`, which is recorded if its turn has come."""
        if not self._is_recording or stage == HOLDS_OTHERS:
            yield
            return
        began_ns = time.time_ns()
        taken = self._steps[stage] = self._steps.get(stage, 0) + 1
        profiler = None if stage == SPAN_ONLY or taken > RECORDED else self._profiler()
        with profiler or nullcontext(), record_function(stage):
            yield
            self._wait()
            seconds = 1e-9 * (time.time_ns() - began_ns)
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        self._spans.append({"name": stage, "ns": began_ns, "us": 1e6 * seconds})
        if profiler is not None:
            self._recorded.append((stage, profiler))

    def _profiler(self) -> profile:
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        return profile(activities=activities, acc_events=True)

    def _table(self, stage: str, profiler: profile) -> str:
        """The operations that took longest by themselves, without what they call, on the device that does the work."""
        clock = "self_device_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        costs = [(getattr(each, clock) / 1e3, each.count, each.key) for each in profiler.key_averages()]
        total = max(sum(cost for cost, _, _ in costs), 1e-9)
        rows = [
            f"{cost:>10.3f} {cost / total:>7.1%} {calls:>8}  {'(outside operations)' if key == stage else key}"
            for cost, calls, key in sorted(costs, reverse=True)[:_ROWS]
        ]
        head = f"{stage}, step {min(RECORDED, self._steps[stage])}: {total:.3f} ms"
        return "\n".join([head, "", "        ms   share    calls  operation", *rows])

    def _summary(self) -> str:
        tables = {stage: self._table(stage, profiler) for stage, profiler in self._recorded}  # of the last step
        rows = [f"{stage:<24} {count:>6} steps {self._seconds[stage]:>10.3f} s" for stage, count in self._steps.items()]
        head = (
            f"One round of training by stage; recorded steps (the first {RECORDED} of each) are slower than the others."
            "\n\n"
        )
        return head + "\n".join(rows) + "\n\n\n" + "\n\n\n".join(tables.values()) + "\n"

    def _merged(self) -> dict[str, Any]:
        """One trace of all: the profilers' own, and the spans as a process beside them."""
        traces = [_exported(profiler) for _, profiler in self._recorded]
        first = traces[0] if traces else {}
        base_ns = int(first.get("baseTimeNanoseconds", 0))
        events = [event for trace in traces for event in trace["traceEvents"]]
        events.append({"ph": "M", "name": "process_name", "pid": _SPANS_PROCESS, "args": {"name": _SPANS_PROCESS}})
        for span in self._spans:
            place = {"pid": _SPANS_PROCESS, "tid": 0, "ts": (span["ns"] - base_ns) / 1e3, "dur": span["us"]}
            events.append({"ph": "X", "cat": "stage", "name": span["name"], **place})
        return {**first, "traceEvents": events}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _exported(profiler: profile) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return json.loads(file.read_text(encoding="utf-8"))
