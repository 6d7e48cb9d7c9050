"""Measures a plan's cells one after the other, the first ones first; what is in RESULTS is done and is skipped.

    python benchmarks/prediction/study.py PLAN.yaml --work DIR --results DIR [--run NAME=DIR] [--only REGEX]
        [--limit N] [--list] [--commit]

A cell is collecting its dataset, fitting a model and measuring its predictions; each of these goes on where it was when
the study is started again. A cell that fails is reported and the next one begins; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from study_plan import Cell, PlanError, read_plan
from study_record import make_record, read_record, write_record
from study_steps import StepFailed, Workshop


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for: 0 when every chosen cell is measured, 1 when one failed, 2 on a mistake."""
    asked = _parse(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        plan = read_plan(asked.plan)
        cells = [cell for cell in plan.cells if re.search(asked.only, cell.name)]
        if not cells:
            raise PlanError(f"no cell's name contains {asked.only!r}; --list shows them")
        if asked.commit:
            _git(asked.results, "rev-parse")
        done = _read_done(cells, asked.results)
        if asked.list:
            _list(cells, done)
            return 0
        pending = [cell for cell in cells if cell.name not in done][: asked.limit]
        workshop = Workshop(plan, asked.work, dict(asked.run))
        for cell in pending:
            if source := workshop.missing_source(cell):
                raise PlanError(f"{cell.dataset} needs a run of {source}: --run {source}=DIR, or sources in the plan")
    except (ValueError, re.error) as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    print(f"{len(done)} of {len(cells)} cells are measured, {len(pending)} to go", flush=True)
    try:
        failed = [
            cell.name for number, cell in enumerate(pending, 1) if not _try(cell, number, len(pending), workshop, asked)
        ]
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on")
        return 130
    if failed:
        print(f"{len(failed)} failed: {' '.join(failed)}")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="study.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where datasets, runs and logs go (large)")
    parser.add_argument("--results", type=Path, required=True, help="where cells/CELL.json go (small)")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        type=_named_folder,
        metavar="NAME=DIR",
        help="a source that is there already",
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="cells whose name contains it")
    parser.add_argument("--limit", type=int, metavar="N", help="cells to measure at most")
    parser.add_argument("--list", action="store_true", help="show the cells and stop")
    parser.add_argument("--commit", action="store_true", help="commit RESULTS with git after every cell")
    return parser.parse_args(arguments)


def _named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not Path(folder).is_dir() or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=DIR with a run folder DIR")
    return name, Path(folder)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _cell_file(cell: Cell, results: Path) -> Path:
    return results / "cells" / f"{cell.name}.json"


def _read_done(cells: Sequence[Cell], results: Path) -> dict[str, dict[str, Any]]:
    """The records of the cells that are measured.

    Raises:
        ValueError: when one was measured with other settings than the plan's.
    """
    done: dict[str, dict[str, Any]] = {}
    for cell in cells:
        file = _cell_file(cell, results)
        if file.exists():
            done[cell.name] = read_record(file)
            if any(done[cell.name][name] != value for name, value in cell.settings.items()):
                raise PlanError(f"{file} was measured with other settings than the plan's; delete it to redo it")
    return done


def _list(cells: Sequence[Cell], done: dict[str, dict[str, Any]]) -> None:
    for cell in cells:
        cost = done[cell.name]["cost"] if cell.name in done else None
        state = (
            "to do" if cost is None else f"done: fit {cost['fit']['wall_s']:.0f} s, {cost['predict']['wall_s']:.0f} s"
        )
        print(f"{cell.name}  {state}")


def _try(cell: Cell, number: int, total: int, workshop: Workshop, asked: Any) -> bool:
    """Measure one cell and say how it went; False when it failed."""
    print(f"[{number}/{total}] {cell.name}", flush=True)
    began = time.monotonic()
    try:
        record = _measure(cell, workshop, asked)
    except (StepFailed, ValueError, OSError) as error:
        print(f"  failed: {error}", flush=True)
        return False
    orders = record["prediction"]["orders"]
    errors = {name: list((order["state"] or order["obs"])["cumulative"].values())[-1] for name, order in orders.items()}
    summed = ", ".join(f"{name} {error:.2f}" for name, error in errors.items())
    horizon = record["prediction"]["marks"][-1]
    print(f"  E_{horizon}: {summed}; {time.monotonic() - began:.0f} s", flush=True)
    if asked.commit:
        _commit(cell, asked.results)
    return True


def _measure(cell: Cell, workshop: Workshop, asked: Any) -> dict[str, Any]:
    workshop.dataset(cell)
    fit_cost = workshop.fit(cell)
    prediction, predict_cost = workshop.predict(cell)
    record = make_record(
        cell,
        workshop.run_folder(cell),
        workshop.dataset_folder(cell),
        prediction,
        fit=fit_cost,
        predict=predict_cost,
        keep_fan=cell.name in workshop.plan.fans,
    )
    write_record(_cell_file(cell, asked.results), record)
    return record


def _commit(cell: Cell, results: Path) -> None:
    """Commit what RESULTS holds and nothing else; that git is busy costs no result, the next cell commits both."""
    try:
        _git(results, "add", "--", ".")
        _git(results, "commit", "--quiet", "-m", f"Measure {cell.name}", "--", ".")
    except ValueError as error:
        print(f"  not committed: {error}", flush=True)


def _git(results: Path, *arguments: str) -> None:
    """Run git inside RESULTS.

    Raises:
        ValueError: with what git says.
    """
    results.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["git", "-C", str(results), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"git {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")


if __name__ == "__main__":
    sys.exit(main())
