"""What online updates do to an inferencer, from the metrics of a run of `dima train` with `inference.run`.

    python benchmarks/inference/online_report.py RUN OUT.png

The error of one draw on held-out states of the data that it was fitted on, after each update, and on fresh states
before it; both in squared standard deviations of the fit's data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from dima.run.figure_style import RC

CURVES = {
    "inference/old_error": ("held-out states of the fit's data", "#0072B2"),
    "inference/new_error_before": ("the run's own states, before the update", "#D55E00"),
}


def main() -> None:
    """Write the figure and print its numbers."""
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(3.5, 2.3), layout="constrained")
        for name, (label, color) in CURVES.items():
            pairs = [(row["env_steps"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*pairs, strict=True), marker="o", color=color, label=label)
            print(f"{name}: " + ", ".join(f"{steps}: {error:.3f}" for steps, error in pairs))
        axes.set_xlabel("real env steps of the run")
        axes.set_ylabel("squared error of one draw")
        axes.set_ylim(bottom=0)
        axes.legend()
        figure.savefig(out, dpi=160)


if __name__ == "__main__":
    main()
