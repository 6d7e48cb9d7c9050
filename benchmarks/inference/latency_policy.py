"""How long a decision takes with files of `dima export compile=true`: observations in, the team's actions out.

    python benchmarks/inference/latency_policy.py OUT.json MACHINE FILE.pt2 [FILE.pt2 ..]

One thread, one team, all files in turns in one process. A decision is the whole of what an execution loop does between
two env steps: shifting the history, drawing the noise, inferring every agent's state, acting.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, _inductor

ROUNDS, CALLS = 30, 10
LEADING_CALLS = 20


def main() -> None:
    """Measure, print and write."""
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    out, machine, files = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loaded = {file: _load(file) for file in files}
    times: dict[str, list[tuple[float, float]]] = {file: [] for file in files}
    with torch.inference_mode():
        for decide, _ in loaded.values():
            _time(decide, LEADING_CALLS)
        for _ in range(ROUNDS):
            for file, (decide, _) in loaded.items():
                times[file].append(_time(decide, CALLS))
    record = {"machine": machine, "torch": torch.__version__, "threads": 1, "rounds": ROUNDS, "calls": CALLS}
    record["files"] = [_describe(about, times[file]) for file, (_, about) in loaded.items()]
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["files"], indent=1))


def _load(file: str) -> tuple[Callable[[], Tensor], dict[str, Any]]:
    """(one decision on random observations, what the file says of itself)."""
    act = _inductor.aoti_load_package(file)
    about = json.loads(act.get_metadata()["metadata.json"])
    agents = len(about["obs_sizes"])
    width = max(about["obs_sizes"]) + (agents if about["appends_agent_id"] else 0)
    history = torch.zeros(1, about["history_steps"] + 1, agents, width)
    size = sum(about["noise_sizes"].values())

    def decide() -> Tensor:
        nonlocal history
        history = torch.cat([history[:, 1:], torch.randn(1, 1, agents, width)], dim=1)
        return act(history, torch.randn(1, size)) if size else act(history)

    return decide, about


def _time(decide: Callable[[], Tensor], calls: int) -> tuple[float, float]:
    """Milliseconds a decision: (of the processor, of the clock)."""
    processor, clock = time.process_time(), time.perf_counter()
    for _ in range(calls):
        decide()
    scale = 1e3 / calls
    return scale * (time.process_time() - processor), scale * (time.perf_counter() - clock)


def _describe(about: dict[str, Any], times: list[tuple[float, float]]) -> dict[str, Any]:
    processor, clock = zip(*times, strict=True)
    return {
        "env_id": about["env_id"],
        "history_steps": about["history_steps"],
        "noise_sizes": about["noise_sizes"],
        "cpu_ms": {"median": statistics.median(processor), "least": min(processor)},
        "clock_ms": {"median": statistics.median(clock), "least": min(clock)},
    }


if __name__ == "__main__":
    main()
