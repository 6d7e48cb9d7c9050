"""Steps a second of SMAX with random preferences, episodes begun anew as they end: `python benchmarks/smax/speed.py`.

Needs DIMA_SMAX_PYTHON (docs/smac.md). By the clock, and by the processor time of worker and adapter, which says more
where others use the machine too.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from envs.smax_vector import SmaxVec


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def play(vec: SmaxVec, steps: int, seed: int) -> None:
    """`steps` steps of all rows."""
    rng, rows = np.random.default_rng(seed), list(range(vec.num_envs))
    shape = (len(rows), vec.spec.num_agents, vec.spec.action_dim)
    vec.reset(rows, [seed + row for row in rows])
    for step in range(steps):
        results = vec.step(rows, rng.uniform(-1.0, 1.0, shape).astype(np.float32))
        if ended := [row for row, result in enumerate(results) if result.terminated or result.truncated]:
            vec.reset(ended, [seed + 1000 * (step + 1) + row for row in ended])


def main() -> None:
    """Print a row of a table for each number of environments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", default="3m")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--batching", default="map")
    parser.add_argument("--env-steps", type=int, default=4000)
    options = parser.parse_args()
    with initialize_config_module("configs", version_base="1.3"):
        config = instantiate(compose(overrides=[f"+env=smax/{options.map}"]).env, _convert_="object")
    print("| map | batching | B | ready after (s) | env steps/s | env steps per processor second | load |")
    print("|---|---|---|---|---|---|---|")
    for num_envs in options.envs:
        began = time.perf_counter()
        vec = dataclasses.replace(config, batching=options.batching).build_vector(num_envs)
        ready, pids = time.perf_counter() - began, (os.getpid(), vec.worker.pid)
        play(vec, 20, 0)
        began, used = time.perf_counter(), sum(map(processor_s, pids))
        steps = options.env_steps // num_envs
        play(vec, steps, 1)
        rate = steps * num_envs / (time.perf_counter() - began)
        per_processor = steps * num_envs / (sum(map(processor_s, pids)) - used)
        print(
            f"| {options.map} | {options.batching} | {num_envs} | {ready:.0f} | {rate:,.0f} | {per_processor:,.0f} | "
            f"{os.getloadavg()[0]:.1f} |",
            flush=True,
        )
        vec.close()


if __name__ == "__main__":
    main()
