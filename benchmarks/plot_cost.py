"""Learning curves against what they cost, from a JSON file of measured runs.

    python benchmarks/plot_cost.py LEARNING.json OUT.png

`{"title", "runs": [{"version", "seed", "evaluations": [{"env_steps", "cpu_s", "returns"}]}]}`; `cpu_s`: the process's
CPU time when the evaluation had been made. One colour a version, one line a run; bands are ranges over episodes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#888888", "#0072b2", "#d55e00", "#009e73")
STYLES = ("-", "--", ":", "-.")


def draw(measured: dict[str, Any], out: Path) -> None:
    """Write the figure to `out`."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    versions = list(dict.fromkeys(run["version"] for run in measured["runs"]))
    for run in measured["runs"]:
        colour = COLOURS[versions.index(run["version"]) % len(COLOURS)]
        points = [e for e in run["evaluations"] if e["cpu_s"] is not None]
        cost, returns = [e["cpu_s"] for e in points], [e["returns"] for e in points]
        style = STYLES[run["seed"] % len(STYLES)]
        label = f"{run['version']}, seed {run['seed']}"
        axes.plot(cost, [fmean(r) for r in returns], style, color=colour, marker="o", markersize=3, label=label)
        axes.fill_between(cost, [min(r) for r in returns], [max(r) for r in returns], color=colour, alpha=0.12)
        last = points[-1]
        axes.annotate(
            f"{last['env_steps']:,}",
            (cost[-1], fmean(returns[-1])),
            fontsize=7,
            xytext=(4, 2),
            textcoords="offset points",
        )
    axes.set(
        xlabel="CPU seconds of the run (numbers: real env steps)", ylabel="episode return", title=measured["title"]
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
