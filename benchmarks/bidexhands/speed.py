"""Control steps a second of the Bi-DexHands port: physics alone, one PettingZoo environment, batches of several sizes.

    python benchmarks/bidexhands/speed.py OUT.json [--tasks over,pen] [--sizes 1,16,64] [--threads N] [--steps 2000]

In turns within one process, medians over repeats. `physics` is `mj_step` alone, which is what the figures of the
prototype counted that the port grew from; everything else includes observations, rewards and resets.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import provenance

from envs.bidexhands import TASKS, BiDexHandsBatch, parallel_env
from envs.bidexhands.batch import threads_of

mujoco = importlib.import_module("mujoco")  # its functions are bound at run time, unknown to the type checker

PROTOTYPE = {
    "over": {"fine": [1420, 1750], "fast": [2750, 2750]},
    "door-open-inward": {"fine": [850, 1175], "fast": [1770, 1770]},
    "door-open-outward": {"fine": [800, 900], "fast": [1960, 1960]},
    "bottle-cap": {"fine": [780, 900], "fast": [1570, 1570]},
    "pen": {"fine": [1060, 1060], "fast": [1910, 1910]},
}
"""Steps a CPU second of `mj_step`, lowest and highest, on another day of a machine of this kind."""


def main() -> None:
    """Measure what the command line asks for and write it."""
    asked = _parse()
    measured_on = provenance.describe()
    rows = []
    for task in asked.tasks:
        for physics in ("fine", "fast"):
            row = {"task": task, "physics": physics, **_measure(task, physics, asked)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    settings = {"steps": asked.steps, "repeats": asked.repeats, "threads": asked.threads, "sizes": asked.sizes}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(
        json.dumps({"schema": 2, **measured_on, "settings": settings, "prototype": PROTOTYPE, "rows": rows}, indent=1)
    )


def _measure(task: str, physics: str, asked: argparse.Namespace) -> dict[str, Any]:
    cases: dict[str, Callable[[int], None]] = {
        "physics": _physics(task, physics),
        "pettingzoo": _pettingzoo(task, physics),
    }
    memory = {}
    for size in asked.sizes:
        before = _resident_bytes()
        cases[f"batch_{size}"] = _batch(task, physics, size, asked.threads)
        cases[f"batch_{size}"](size * 20)  # touch what stepping touches
        memory[str(size)] = round((_resident_bytes() - before) / size)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(asked.repeats):
        for name, run in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(asked.steps)
            figures[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        "steps_per_s": {n: round(asked.steps / statistics.median(w for w, _ in f)) for n, f in figures.items()},
        "steps_per_core_s": {n: round(asked.steps / statistics.median(c for _, c in f)) for n, f in figures.items()},
        "bytes_per_env": memory,
    }


def _physics(task: str, physics: str) -> Callable[[int], None]:
    batch = BiDexHandsBatch(task, physics=physics)  # type: ignore[arg-type]
    model, data = batch.simulation.model, batch.simulation.world(0)
    low, high = model.actuator_ctrlrange.T
    rng = np.random.default_rng(0)

    def run(steps: int) -> None:
        for step in range(steps):
            if step % batch.task.episode_steps == 0:
                batch.reset([0], [step])
            data.ctrl[:] = rng.uniform(low, high)
            mujoco.mj_step(model, data, batch.physics.substeps)

    return run


def _pettingzoo(task: str, physics: str) -> Callable[[int], None]:
    env = parallel_env(task, physics=physics)
    rng = np.random.default_rng(0)
    size = env.batch.action_size

    def run(steps: int) -> None:
        for _ in range(steps):
            if not env.agents:
                env.reset(seed=int(rng.integers(1 << 30)))
            env.step({agent: rng.uniform(-1, 1, size) for agent in env.possible_agents})

    return run


def _batch(task: str, physics: str, size: int, threads: int) -> Callable[[int], None]:
    batch = BiDexHandsBatch(task, size, num_threads=threads, physics=physics)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    rows = np.arange(size)
    batch.reset(rows.tolist(), rows.tolist())

    def run(steps: int) -> None:
        for _ in range(max(1, steps // size)):
            result = batch.step(rows.tolist(), rng.uniform(-1, 1, (size, 2, batch.action_size)))
            ended = rows[result.terminated | result.truncated].tolist()
            if ended:
                batch.reset(ended, rng.integers(1 << 30, size=len(ended)).tolist())

    return run


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS))
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[1, 16, 64])
    parser.add_argument("--threads", type=int, default=threads_of(1 << 20))
    parser.add_argument("--steps", type=int, default=1920, help="control steps of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
