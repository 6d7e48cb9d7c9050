"""Learning curves from `scores.json` files alone: mean evaluation return against real env steps, one line a file.

    python benchmarks/plot_scores.py OUT.png SCORES.json [SCORES.json ...]

The band is the range over the evaluation's episodes, not over seeds. Files of different environments are refused.
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


def load(paths: list[Path]) -> list[dict[str, Any]]:
    """Read score files.

    Raises:
        SystemExit: when a file is missing or they are not all of one environment.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise SystemExit(f"no such file: {', '.join(missing)}")
    scores = [json.loads(path.read_text()) for path in paths]
    tasks = sorted({score["env"] for score in scores})
    if len(tasks) > 1:
        raise SystemExit(f"scores of different environments do not belong into one figure: {', '.join(tasks)}")
    return scores


def draw(scores: list[dict[str, Any]], labels: list[str], out: Path) -> None:
    """Write the figure to `out`."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for score, label in zip(scores, labels, strict=True):
        evaluations = sorted(score["evaluations"], key=lambda evaluation: evaluation["env_steps"])
        steps = [evaluation["env_steps"] for evaluation in evaluations]
        returns = [evaluation["returns"] for evaluation in evaluations]
        (line,) = axes.plot(steps, [fmean(values) for values in returns], marker="o", markersize=3, label=label)
        low, high = [min(values) for values in returns], [max(values) for values in returns]
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="real env steps", ylabel="episode return, deterministic actions", title=scores[0]["env"])
    axes.legend(frameon=False)
    figure.savefig(out, dpi=150)


def main() -> None:
    """Draw what the command line names."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    out, paths = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    scores = load(paths)
    labels = [path.stem if path.stem != "scores" else path.parent.name for path in paths]
    draw(scores, labels, out)


if __name__ == "__main__":
    main()
