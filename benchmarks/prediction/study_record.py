"""What is kept of a cell, small enough to be committed: RESULTS/cells/CELL.json, version 1.

`{"schema": 1, "cell", "group", "dataset", "seed", "fit", "predict"` (what the commands were told)`, "fitted": {
"num_agents", "training_steps", "held_out_steps", "updates", "parameters", "training_loss", "held_out_loss", "commit",
"dirty", "hardware"}, "cost": {"fit": {"wall_s", "cpu_s"}, "predict": {..}}, "prediction": {..}}`: the prediction
without what is long and follows from a new measurement: intervals per step, raw units, bins, mostly the fan.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from study_plan import Cell
from study_steps import Cost

from dima.run import prediction_schema
from worldmodel.atomic import write_whole

SCHEMA = 1

_DROPPED = {"e_ci95", "e_std", "raw", "bins", "std", "constant", "crps_ci95"}
"""Keys that are left out wherever they stand in a prediction."""

_SIGNIFICANT = 6
"""Digits that are kept."""


def make_record(
    cell: Cell, run: Path, dataset: Path, prediction_file: Path, *, fit: Cost, predict: Cost, keep_fan: bool
) -> dict[str, Any]:
    """The record of a measured cell.

    Raises:
        ValueError: when the prediction does not keep its schema.
    """
    prediction = prediction_schema.read(prediction_file)
    slim = {name: value for name, value in prediction.items() if name not in ("run", "fan")}
    slim["data"] = {name: value for name, value in prediction["data"].items() if name != "path"}
    return {
        "schema": SCHEMA,
        "cell": cell.name,
        **cell.settings,
        "fitted": _describe_fit(run, dataset),
        "cost": {"fit": dataclasses.asdict(fit), "predict": dataclasses.asdict(predict)},
        "prediction": _slim(slim) | ({"fan": _slim(prediction["fan"])} if keep_fan else {}),
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replace the file at `path` by `record`, a line for each key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items() if name != "prediction"]
    parts = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in record["prediction"].items()]
    lines.append('"prediction": {\n' + ",\n".join(parts) + "\n}")
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_record(path: Path) -> dict[str, Any]:
    """The record at `path`.

    Raises:
        ValueError: when it is no such record; names the file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no measured cell: {error!r}; delete it to measure it again") from error
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema}, this program reads {SCHEMA}; delete it to measure it again")
    return record


def _describe_fit(run: Path, dataset: Path) -> dict[str, Any]:
    """What a finished run folder of `dima fit` tells: amounts, the last losses, parameters, code and machine."""
    # Here, as they take seconds: listing cells and finding mistakes in a plan should not.
    from dima.run.parameters import num_parameters
    from dima.run.settings import load_config, read_settings
    from worldmodel.dataset import read_header, read_spec

    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    settings: Any = read_settings(load_config(run / "config.yaml"))
    spec = read_spec(read_header(dataset), dataset)
    model = settings.learner_config.build(spec)
    last: dict[str, float] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        last |= json.loads(line)  # parts with fewer updates are missing in later rows
    return {
        "num_agents": spec.num_agents,
        "training_steps": manifest["data"]["training_steps"],
        "held_out_steps": manifest["data"]["held_out_steps"],
        "updates": settings.updates
        if isinstance(settings.updates, dict)
        else dict.fromkeys(model.parts(), settings.updates),
        "parameters": num_parameters(model.parts()),
        "training_loss": _losses(last, "world_model"),
        "held_out_loss": _losses(last, "held_out"),
        "commit": manifest["commit"],
        "dirty": manifest["dirty"],
        "hardware": manifest["hardware"],
    }


def _losses(row: dict[str, float], where: str) -> dict[str, float]:
    """By part; empty where nothing was held out."""
    ending = "_loss"
    found = {name: value for name, value in row.items() if name.startswith(f"{where}/") and name.endswith(ending)}
    return {name.removeprefix(f"{where}/").removesuffix(ending): _slim(value) for name, value in found.items()}


def _slim(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _slim(item) for name, item in value.items() if name not in _DROPPED}
    if isinstance(value, list):
        return [_slim(item) for item in value]
    return float(f"{value:.{_SIGNIFICANT}g}") if isinstance(value, float) else value
