"""Carries out a cell by `dima` commands in processes of their own: what is finished is kept, what was cut off goes on.

Below the work folder lie sources/ (runs whose policies act), datasets/, runs/ (fits), predictions/, costs/ and logs/.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study_plan import Cell, Plan, words

from worldmodel.atomic import write_whole

_SHOWN_LINES = 8
"""Of a failed command's output."""


class StepFailed(RuntimeError):
    """A command that did not do its work; ends with its last lines."""


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """CPU time of the command and the processes it started."""


class Workshop:
    """Brings about what cells need, each thing once."""

    def __init__(self, plan: Plan, work: Path, given_runs: Mapping[str, Path]) -> None:
        """Work below `work`; `given_runs`: finished runs by the names of `plan.sources`, used as they are."""
        self.plan = plan
        self.work = work
        self._given_runs = given_runs
        self._failed: dict[str, str] = {}

    def missing_source(self, cell: Cell) -> str | None:
        """The name of a run that the cell's dataset needs and that nobody can provide."""
        source = self.plan.datasets[cell.dataset].source
        exists = (self.dataset_folder(cell) / "dataset.json").exists()
        known = source is None or source in self._given_runs or source in self.plan.sources
        return None if known or exists else source

    def dataset_folder(self, cell: Cell) -> Path:
        """Where the cell's dataset lies."""
        return self.work / "datasets" / cell.dataset

    def run_folder(self, cell: Cell) -> Path:
        """Where the cell's fit lies."""
        return self.work / "runs" / cell.fit_name

    def dataset(self, cell: Cell) -> None:
        """Collect the cell's dataset, or finish it.

        Raises:
            StepFailed: when that is not possible, or it holds fewer steps than the plan asks for.
        """
        plan, folder = self.plan.datasets[cell.dataset], self.dataset_folder(cell)

        def collect() -> None:
            header = _read(folder / "dataset.json")
            if not header:
                source = {} if plan.source is None else {"run": self._source(plan.source)}
                self._dima("collect", {**plan.collect, **source, "out": folder}, f"dataset_{plan.name}")
            elif not header["complete"]:
                self._dima("collect", {"resume": folder}, f"dataset_{plan.name}")
            header = _read(folder / "dataset.json")
            _check_recipe(header, plan.collect, folder)
            steps = header["num_steps"]
            if steps < plan.min_steps:
                raise StepFailed(f"{folder} holds {steps} steps, the plan asks for {plan.min_steps}: more episodes")

        self._once(f"dataset {plan.name}", collect)

    def fit(self, cell: Cell) -> Cost:
        """Fit the cell's model, or finish fitting it; what that took, all attempts together.

        Raises:
            StepFailed: when that is not possible.
        """
        folder = self.run_folder(cell)

        def fit() -> None:
            manifest = _read(folder / "manifest.json")
            if manifest.get("is_finished"):
                return
            if manifest and (folder / "config.yaml").exists():
                arguments: dict[str, Any] = {"resume": folder}
            else:
                shutil.rmtree(folder, ignore_errors=True)  # cut off before it began
                arguments = {**cell.fit, "data": self.dataset_folder(cell), "seed": cell.seed, "out": folder}
            self._dima("fit", arguments, cell.fit_name)

        self._once(f"fit {cell.fit_name}", fit)
        return self._cost(cell.fit_name)

    def predict(self, cell: Cell) -> tuple[Path, Cost]:
        """Measure the cell's model anew: the prediction.json, and what that took.

        Raises:
            StepFailed: when that is not possible.
        """
        folder = self.work / "predictions" / cell.name
        shutil.rmtree(folder, ignore_errors=True)
        places = {"run": self.run_folder(cell), "data": self.dataset_folder(cell), "out": folder}
        cost = self._dima("predict", {**cell.predict, **places}, f"predict_{cell.name}")
        return folder / "prediction.json", cost

    def _source(self, name: str) -> Path:
        """The run of that name: the one that was given, or one trained as the plan says."""
        if name in self._given_runs:
            return self._given_runs[name]
        folder = self.work / "sources" / name
        manifest = _read(folder / "manifest.json")
        if not manifest.get("is_finished"):
            begun = manifest and (folder / "config.yaml").exists()
            arguments = {"resume": folder} if begun else {**self.plan.sources[name], "out": folder}
            self._dima("train", arguments, f"source_{name}")
        return folder

    def _once(self, what: str, act: Callable[[], None]) -> None:
        """Do it, and do not try again in this session what has failed."""
        if what in self._failed:
            raise StepFailed(f"{what} has failed before: {self._failed[what]}")
        try:
            act()
        except StepFailed as error:
            self._failed[what] = str(error).splitlines()[-1]
            raise

    def _dima(self, command: str, arguments: Mapping[str, Any], name: str) -> Cost:
        """Run a command to its end, its output into logs/NAME.log; adds to costs/NAME.json what it took."""
        spelled = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        log, costs = self.work / "logs" / f"{name}.log", self.work / "costs" / f"{name}.json"
        for file in (log, costs):
            file.parent.mkdir(parents=True, exist_ok=True)
        wall, cpu = time.monotonic(), _children_cpu_s()
        begin = log.stat().st_size if log.exists() else 0
        try:
            code = _run([sys.executable, "-m", "dima.run.cli", command, *words(spelled)], log)
        finally:
            cost = Cost(round(time.monotonic() - wall, 2), round(_children_cpu_s() - cpu, 2))
            before = self._cost(name)
            total = Cost(round(before.wall_s + cost.wall_s, 2), round(before.cpu_s + cost.cpu_s, 2))
            write_whole(costs, json.dumps(asdict(total)) + "\n")
        if code != 0:
            with log.open(encoding="utf-8", errors="replace") as file:
                file.seek(begin)
                last = [line.rstrip() for line in file if line.strip()][-_SHOWN_LINES:]
            raise StepFailed("\n".join([f"dima {command} ended with {code}; {log} ends:", *last]))
        return cost

    def _cost(self, name: str) -> Cost:
        """What all attempts have taken together."""
        return Cost(**(_read(self.work / "costs" / f"{name}.json") or {"wall_s": 0.0, "cpu_s": 0.0}))


def _check_recipe(header: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Refuse a dataset that was collected by another plan."""
    for name, key in {"episodes": "num_episodes", "policy": "policy", "seed": "seed"}.items():
        if name in asked and header[key] != asked[name]:
            raise StepFailed(f"{folder} has {name} {header[key]}, the plan asks for {asked[name]}: use another --work")


def _run(command: list[str], log: Path) -> int:
    """The exit code of `command`; when this process is interrupted, the command is, and it says how to go on."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            return child.wait()
        except BaseException:
            child.send_signal(signal.SIGINT)
            child.wait()
            raise


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file that is replaced as a whole; empty when it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
