"""What do doing nothing, random actions and the scripts get in the Bi-DexHands port? Returns, lengths, success rates.

    python benchmarks/bidexhands/baselines.py OUT [--tasks over pen] [--physics fine fast] [--episodes 20]

Writes OUT/baselines.json, OUT/BASELINES.md and, for each task, OUT/TASK.png: frames of one scripted episode. Where
neither the task's start nor the policy is random, one episode is played and n = 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import provenance
from PIL import Image

from envs.bidexhands import TASKS, BiDexHandsBatch
from envs.bidexhands.readings import Readings
from envs.bidexhands.rendering import SceneRenderer
from envs.bidexhands.scripted import scripted_policy

NOISE = 0.05
"""Standard deviation of the noise of `scripted, noise`."""
FRAMES, COLUMNS, FRAME_SIZE = 8, 4, (240, 180)

Act = Callable[[Readings, np.ndarray], np.ndarray]
"""The action [R,2,A] for readings of R rows after [R] steps."""


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Of one policy: `returns`, `lengths` and `success` [n]."""

    returns: np.ndarray
    lengths: np.ndarray
    success: np.ndarray


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--physics", nargs="+", default=["fine", "fast"], choices=["fine", "fast"])
    parser.add_argument("--episodes", type=int, default=20)
    arguments = parser.parse_args()
    measured_on = provenance.describe()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in arguments.tasks:
        film(task, arguments.out / f"{task}.png")
        for physics in arguments.physics:
            rows += measure(task, physics, arguments.episodes)
            _say(*rows[-4:])
    report = {
        "command": " ".join(["python", "benchmarks/bidexhands/baselines.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
        **measured_on,
    }
    (arguments.out / "baselines.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / "BASELINES.md").write_text(table(rows))


def measure(task: str, physics: Any, episodes: int) -> list[dict[str, Any]]:
    """A row for each policy."""
    batch = BiDexHandsBatch(task, episodes, physics=physics)
    script, rng = scripted_policy(task), np.random.default_rng(0)
    shape = (2, batch.action_size)
    fixed = episodes if batch.task.random_start else 1
    policies: dict[str, tuple[Act, int]] = {
        "zero": (lambda readings, elapsed: np.zeros((len(elapsed), *shape)), fixed),
        "random": (lambda readings, elapsed: rng.uniform(-1.0, 1.0, (len(elapsed), *shape)), episodes),
        "scripted": (script.act, fixed),
        "scripted, noise": (
            lambda readings, elapsed: script.act(readings, elapsed, noise=NOISE, generator=rng),
            episodes,
        ),
    }
    rows = [
        {"task": task, "physics": physics, "policy": name, **summary(play(batch, act, number))}
        for name, (act, number) in policies.items()
    ]
    batch.close()
    return rows


def play(batch: BiDexHandsBatch, act: Act, number: int) -> Episodes:
    """Episodes with the seeds 0 to `number` - 1, side by side."""
    batch.reset(range(number), range(number))
    returns, lengths = np.zeros(number), np.zeros(number, dtype=int)
    success, is_open = np.zeros(number, dtype=bool), np.ones(number, dtype=bool)
    while is_open.any():
        rows = np.flatnonzero(is_open)
        result = batch.step(rows.tolist(), act(batch.readings(rows.tolist()), lengths[rows]))
        returns[rows] += result.reward
        lengths[rows] += 1
        success[rows] |= result.success
        is_open[rows] = ~(result.terminated | result.truncated)
    return Episodes(returns, lengths, success)


def summary(episodes: Episodes) -> dict[str, Any]:
    """Means, and 95 % intervals where there is more than one episode: bootstrap of the mean, Wilson's of the rate."""
    number = len(episodes.returns)
    found: dict[str, Any] = {
        "n": number,
        "return": round(float(episodes.returns.mean()), 2),
        "length": round(float(episodes.lengths.mean()), 1),
        "success": float(episodes.success.mean()),
    }
    if number > 1:
        draws = np.random.default_rng(0).integers(number, size=(10_000, number))
        found["return_std"] = round(float(episodes.returns.std(ddof=1)), 2)
        found["return_95"] = np.percentile(episodes.returns[draws].mean(axis=1), [2.5, 97.5]).round(2).tolist()
        found["success_95"] = wilson(int(episodes.success.sum()), number)
    return found


def wilson(hits: int, number: int, z: float = 1.96) -> list[float]:
    """The 95 % score interval of a rate."""
    rate = hits / number
    middle = (rate + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z * np.sqrt(rate * (1 - rate) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return [round(float(max(middle - half, 0.0)), 3), round(float(min(middle + half, 1.0)), 3)]


def table(rows: list[dict[str, Any]]) -> str:
    """The markdown table."""
    lines = [
        "| task | physics | policy | n | return | 95 % | std | steps | success | 95 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row.get("return_95", ("", ""))
        least, most = row.get("success_95", ("", ""))
        of_return = f"{low:.1f} to {high:.1f}" if row["n"] > 1 else ""
        of_success = f"{least:.2f} to {most:.2f}" if row["n"] > 1 else ""
        lines.append(
            f"| {row['task']} | {row['physics']} | {row['policy']} | {row['n']} | {row['return']:.1f} | {of_return} | "
            f"{row.get('return_std', '')} | {row['length']:.0f} | {row['success']:.2f} | {of_success} |"
        )
    return "\n".join(lines) + "\n"


def film(task: str, file: Path) -> None:
    """Frames of a scripted episode (seed 0, physics fine), evenly over its length, in rows of four."""
    length = play(batch := BiDexHandsBatch(task), scripted_policy(task).act, 1).lengths[0]
    moments = np.linspace(0, length - 1, FRAMES).round().astype(int)
    renderer, frames = SceneRenderer(*FRAME_SIZE), []
    batch.reset([0], [0])
    for step in range(length):
        if step in moments:
            frames.append(renderer.draw(batch.simulation.model, batch.simulation.world(0)))
        batch.step([0], scripted_policy(task).act(batch.readings([0]), np.array([step])))
    renderer.close()
    batch.close()
    lines = [np.concatenate(frames[first : first + COLUMNS], axis=1) for first in range(0, FRAMES, COLUMNS)]
    picture = Image.fromarray(np.concatenate(lines))
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(file, optimize=True)


def _say(*rows: dict[str, Any]) -> None:
    for row in rows:
        sys.stdout.write(f"{json.dumps(row)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
