"""Two versions of the code timed in turns: `dima bench` of another checkout and of this one, A B A B.

    git worktree add ../before COMMIT
    python benchmarks/versus.py ../before OUT.json [--repeats 3] [KEY=VALUE ...]

The arguments are those of `dima bench` and must mean something to both versions. Both run with this interpreter and its
packages. Writes every run's CPU milliseconds and imagined steps per core-second, their medians, and the median over the
turns of the ratio, which a machine that becomes slower on the way does not move.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]

# Imports the packages of the checkout that the process is started in, whichever is installed.
_BENCH = "import sys, os; sys.path.insert(0, os.getcwd()); from dima.run.cli import main; main()"


def main() -> None:
    """Time both in turns, then write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args()
    if not (asked.before / "dima").is_dir():
        parser.error(f"{asked.before}: expected a checkout of this project")
    turns = [
        {name: bench(place, asked.overrides) for name, place in (("before", asked.before), ("after", HERE))}
        for _ in range(asked.repeats)
    ]
    result = {
        "schema": 1,
        "overrides": asked.overrides,
        "commits": {name: turns[0][name]["commit"] for name in turns[0]},
        "hardware": turns[0]["after"]["hardware"],
        "figures": compare(turns),
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in result["figures"].items():
        print(f"{name}: {row['before']:,.1f} -> {row['after']:,.1f}, {row['gain']:.2f} times as fast")
    print(asked.out)


def bench(checkout: Path, overrides: list[str]) -> dict[str, Any]:
    """bench.json of one run in `checkout`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _BENCH, "bench", *overrides, f"out={folder}/bench.json"]
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "bench.json").read_text())


def figures(record: dict[str, Any]) -> dict[str, float]:
    """What the oldest bench.json has as well: cost in CPU milliseconds, but imagined steps a core-second."""
    costs = {f"{name} update, core-ms": part["update_cpu_ms"] for name, part in record.get("parts", {}).items()}
    if "policy" in record:
        costs["policy update, core-ms"] = record["policy"]["update_cpu_ms"]
    if "imagined_steps_per_core_s" in record:
        costs[IMAGINED] = record["imagined_steps_per_core_s"]
    return costs


IMAGINED = "imagined steps per core-second"


def compare(turns: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians and the median gain, figure by figure."""
    measured = [{name: figures(record) for name, record in turn.items()} for turn in turns]
    rows: dict[str, dict[str, Any]] = {}
    for figure in measured[0]["after"]:
        runs = {name: [turn[name][figure] for turn in measured] for name in ("before", "after")}
        ratios = [b / a for b, a in zip(runs["before"], runs["after"], strict=True)]
        gains = [1 / ratio for ratio in ratios] if figure == IMAGINED else ratios
        medians = {name: statistics.median(values) for name, values in runs.items()}
        rows[figure] = {**medians, "gain": statistics.median(gains), "runs": runs}
    return rows


if __name__ == "__main__":
    main()
