"""Plays the policies of `train_actors.py` on the true state and on inferred ones, and writes one table of returns.

    python benchmarks/inference/evaluate_actors.py --work DIR --fits DIR --results DIR [--episodes 20] [--several]

`--work` holds the runs, `--fits` a folder for each seed (seed0, ..) with a run of dima fit for each inferencer, learned
from data that this seed's policies have collected. Every policy plays the same episode seeds. What is there is skipped.
Intervals are over seeds: Student's t of the runs' mean returns, as a bootstrap of three only repeats their range.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Two-sided 95 % quantiles of Student's t for so many seeds."""


def main() -> int:
    """Evaluate what is missing, then write control.json and CONTROL.md."""
    asked = _parse()
    cells: dict[str, dict[str, list[float]]] = {}
    parameters: dict[str, int] = {}
    task = ""
    for run in sorted(asked.work.glob("*-seed*")):
        if not _is_finished(run):
            continue
        actor, seed = run.name.rsplit("-seed", 1)
        parameters[actor] = _actor_parameters(run)
        task = json.loads((run / "manifest.json").read_text())["spec"]["env_id"]
        for label, words in _ways(actor, asked.fits / f"seed{seed}", asked.several):
            returns = _evaluate(run, label, words, asked)
            cells.setdefault(f"{actor}, {label}" if label else actor, {})[seed] = returns
    asked.results.mkdir(parents=True, exist_ok=True)
    rows = {name: _summary(by_seed) for name, by_seed in cells.items()}
    record = {"task": task, "episodes": asked.episodes, "actor_parameters": parameters}
    record["cells"] = rows
    (asked.results / "control.json").write_text(json.dumps(record, indent=1) + "\n")
    (asked.results / "CONTROL.md").write_text(_table(rows))
    print(_table(rows))
    return 0


def _ways(actor: str, fits: Path, several: bool) -> list[tuple[str, list[str]]]:
    """How a policy is executed: (label, words for dima evaluate)."""
    if "state" not in actor:
        return [("", [])]
    ways = [("oracle", ["inference=oracle"])]
    for fit in sorted(fits.iterdir()):
        if (fit / "manifest.json").exists():
            ways.append((fit.name, [f"inference={fit}"]))
            if several and fit.name.startswith("globediff"):
                ways.append((f"{fit.name}, mean of 8", [f"inference={fit}", "combine=mean", "samples=8"]))
                ways.append((f"{fit.name}, votes of 8", [f"inference={fit}", "combine=votes", "samples=8"]))
    return ways


def _evaluate(run: Path, label: str, words: list[str], asked: argparse.Namespace) -> list[float]:
    out = run / "control" / (label.replace(", ", "-").replace(" ", "-") or "plain")
    scores = out / "scores.json"
    if scores.exists() and len(json.loads(scores.read_text())["evaluations"][0]["returns"]) != asked.episodes:
        raise SystemExit(f"{scores} has not {asked.episodes} episodes: delete it, or ask for as many with --episodes")
    if not scores.exists():
        words = [f"run={run}", f"episodes={asked.episodes}", "seed=1000", "num_threads=1", f"out={out}", *words]
        subprocess.run(
            [sys.executable, "-m", "dima.run.cli", "evaluate", *words], check=True, stdout=subprocess.DEVNULL
        )
    return json.loads(scores.read_text())["evaluations"][0]["returns"]


def _actor_parameters(run: Path) -> int:
    weights = load_file(run / "checkpoints" / "latest" / "policy.safetensors")
    networks = ("state.policy.trunk.", "state.policy.head.")
    return sum(tensor.numel() for name, tensor in weights.items() if name.startswith(networks))


def _is_finished(run: Path) -> bool:
    manifest = run / "manifest.json"
    return manifest.exists() and json.loads(manifest.read_text())["is_finished"]


def _summary(by_seed: dict[str, list[float]]) -> dict[str, Any]:
    means = np.array([np.mean(returns) for returns in by_seed.values()])
    half = T95[len(means)] * float(means.std(ddof=1)) / len(means) ** 0.5 if len(means) > 1 else 0.0
    interval = [float(means.mean()) - half, float(means.mean()) + half] if len(means) > 1 else None
    return {
        "mean": float(means.mean()),
        "ci95_over_seeds": interval,
        "by_seed": {seed: {"mean": float(np.mean(r)), "std": float(np.std(r))} for seed, r in by_seed.items()},
    }


def _table(rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| policy, state at execution | mean return | 95 % over seeds | by seed |", "|---|---:|---|---|"]
    for name, row in rows.items():
        interval = row["ci95_over_seeds"]
        between = "one seed" if interval is None else f"[{_spell(interval[0])}, {_spell(interval[1])}]"
        seeds = ", ".join(_spell(each["mean"]) for each in row["by_seed"].values())
        lines.append(f"| {name} | {_spell(row['mean'])} | {between} | {seeds} |")
    return "\n".join(lines) + "\n"


def _spell(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the runs of train_actors.py")
    parser.add_argument("--fits", type=Path, required=True, help="SEED/INFERENCER, runs of dima fit")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--several", action="store_true", help="also the mean and the votes of eight draws (slow)")
    parser.add_argument("--episodes", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
