"""Learning curves of runs on the Bi-DexHands port beside uniformly random actions, with 95 % intervals.

    python benchmarks/bidexhands/curves.py OUT.png OUT.json BASELINES.json RUN [RUN ...]

Two figures a run: episodes played while collecting (sampled actions; the mean of those within a window of env steps,
with a bootstrap interval), and evaluations (deterministic actions; one value where a task begins in one way only).
Random returns come from BASELINES.json, which baselines.py wrote. Runs of one task belong into one file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WINDOW = 2000
"""Env steps whose episodes are averaged."""
RESAMPLES = 5000


def main() -> None:
    """Draw and write what the command line names."""
    if len(sys.argv) < 5:
        raise SystemExit(__doc__)
    picture, table, baselines, *folders = map(Path, sys.argv[1:])
    runs = [_read(folder) for folder in folders]
    tasks = sorted({run["env"] for run in runs})
    if len(tasks) > 1:
        raise SystemExit(f"runs of different tasks do not belong into one figure: {', '.join(tasks)}")
    random = _random(baselines, tasks[0])
    table.write_text(json.dumps({"schema": 1, "env": tasks[0], "random": random, "runs": runs}, indent=1) + "\n")
    _draw(runs, random, picture)


def _read(folder: Path) -> dict[str, Any]:
    """Windows and evaluations of one run."""
    scores = json.loads((folder / "scores.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    played = np.array([(row["env_steps"], row["episode/return"]) for row in rows if "episode/return" in row])
    windows = []
    for last in range(WINDOW, int(played[-1, 0]) + 1, WINDOW):
        inside = played[(played[:, 0] > last - WINDOW) & (played[:, 0] <= last), 1]
        if len(inside):
            windows.append({"env_steps": last, "rounds": len(inside), **_interval(inside)})
    evaluations = [
        {"env_steps": e["env_steps"], "returns": e["returns"], "mean": float(np.mean(e["returns"]))}
        for e in scores["evaluations"]
    ]
    seconds = rows[-1]["time_s"]
    return {"run": folder.name, "env": scores["env"], "seed": scores["seed"], "time_s": seconds,
            "collected": windows, "evaluations": evaluations}  # fmt: skip


def _interval(values: np.ndarray) -> dict[str, float]:
    """Mean and bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _random(baselines: Path, env_id: str) -> dict[str, Any]:
    """Returns of uniformly random actions on the task."""
    rows = json.loads(baselines.read_text())["rows"]
    task = env_id.partition("/")[2]
    (row,) = [r for r in rows if r["task"] == task and r["physics"] == "fine" and r["policy"] == "random"]
    low, high = row["return_95"]
    return {"mean": row["return"], "low": low, "high": high, "episodes": row["n"]}


def _draw(runs: list[dict[str, Any]], random: dict[str, Any], picture: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.axhspan(random["low"], random["high"], color="0.85")
    axes.axhline(random["mean"], color="0.5", linewidth=1, label=f"uniformly random, {random['episodes']} episodes")
    for run in runs:
        steps = [window["env_steps"] for window in run["collected"]]
        (line,) = axes.plot(steps, [w["mean"] for w in run["collected"]], label=f"seed {run['seed']}, while collecting")
        axes.fill_between(
            steps,
            [w["low"] for w in run["collected"]],
            [w["high"] for w in run["collected"]],
            color=line.get_color(),
            alpha=0.2,
            linewidth=0,
        )
        axes.plot(
            [e["env_steps"] for e in run["evaluations"]],
            [e["mean"] for e in run["evaluations"]],
            "o--",
            markersize=4,
            color=line.get_color(),
            label=f"seed {run['seed']}, evaluation",
        )
    axes.set(xlabel="real env steps", ylabel="episode return", title=runs[0]["env"])
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    main()
