"""`dima predict`: long-horizon prediction error of one or several world models, across the orders of the agents.

Writes `prediction.json` (`docs/prediction.md` is its schema) and figures; with several runs one folder for each, and a
comparison on the same segments.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from dima.run.console import Progress, announce, say
from dima.run.folder import RunFolder, new_path
from dima.run.held_out import read_env_config
from dima.run.hydra_app import run_app
from dima.run.predict_settings import PredictSettings
from dima.run.prediction import Task
from dima.run.prediction_figures.overlay import own_order
from dima.run.prediction_gain import TrueChanges, true_changes
from dima.run.prediction_inputs import open_runs
from dima.run.prediction_record import Measurement, Opened, measure_run
from dima.run.prediction_schema import SCHEMA
from dima.run.prediction_tables import describe_pairs, print_prediction
from dima.run.settings import read_settings
from worldmodel.atomic import write_whole
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset, read_dataset


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("predict", predict)


def predict(config: DictConfig) -> None:
    """Measure the runs that `config` names and write what came out."""
    if config.data is None:
        raise ConfigError("data has no value; name a dataset folder: data=DIR (dima collect makes one)")
    settings: PredictSettings = read_settings(config)
    dataset = read_dataset(Path(settings.data))
    opened = open_runs(settings, dataset)
    out = _out(settings, opened)
    folder = RunFolder.create(out, resumable=False)
    _announce(settings, dataset, opened, out)
    try:
        task, measurements = _measure_all(settings, dataset, opened)
        _write(out, settings, task, measurements)
    except BaseException:
        folder.remove()
        raise
    for label, measurement in measurements.items():
        print_prediction(label, measurement.record)
    say(f"wrote {out}")


def _out(settings: PredictSettings, opened: Sequence[Opened]) -> Path:
    if settings.out is not None:
        return Path(settings.out)
    if settings.run is not None:
        return new_path(opened[0].saved.path / "predict", str(opened[0].saved.step))
    return new_path(Path("runs"), "predict")


def _announce(settings: PredictSettings, dataset: Dataset, opened: Sequence[Opened], out: Path) -> None:
    steps = sum(episode.length for episode in opened[0].held_out)
    announce(
        "predict",
        {
            "task": f"{dataset.spec.env_id} ({dataset.spec.num_agents} agents)",
            **{f"run {i + 1}": f"{each.saved.path}, checkpoint {each.saved.step}" for i, each in enumerate(opened)},
            "data": f"{dataset.path}: {steps} steps of {len(opened[0].held_out)} held-out episodes",
            "segments": f"{settings.segments} of {settings.horizon} steps, {settings.samples} samples each",
            "orders": ", ".join(opened[0].models),
            "device": opened[0].saved.device,
            "folder": out,
        },
    )


def _measure_all(
    settings: PredictSettings, dataset: Dataset, opened: Sequence[Opened]
) -> tuple[Task, dict[str, Measurement]]:
    """The common task, and by label what each run makes of it."""
    task = Task.of(
        dataset,
        opened[0].training,
        opened[0].held_out,
        horizon=settings.horizon,
        num_segments=settings.segments,
        num_samples=settings.samples,
        num_resamples=settings.resamples,
        by_episode=settings.resample == "episodes",
        generator=settings.generator,
    )
    progress = Progress(0, sum(len(each.models) + 2 for each in opened), counted="forecasts")
    measurements: dict[str, Measurement] = {}
    try:
        for each in opened:
            measurements[each.label] = measure_run(
                each,
                dataclasses.replace(task, training=each.training),
                dataset,
                _true_changes(settings, task, dataset, each),
                gain_samples=settings.gain_samples,
                seed=settings.seed,
                advance=progress.advance,
            )
    finally:
        progress.close()
    return task, measurements


def _true_changes(settings: PredictSettings, task: Task, dataset: Dataset, opened: Opened) -> TrueChanges:
    if settings.gain_states == 0:
        return TrueChanges(None, None, None, settings.perturbation_std, "left out: gain_states=0")
    return true_changes(
        read_env_config(dataset),
        task,
        context_length=opened.model.context_length,
        num_states=settings.gain_states,
        perturbation_std=settings.perturbation_std,
    )


def _write(out: Path, settings: PredictSettings, task: Task, measurements: dict[str, Measurement]) -> None:
    from dima.run import prediction_figures as figures  # matplotlib: slow to import

    for label, measurement in measurements.items():
        place = out if settings.runs is None else out / label
        place.mkdir(parents=True, exist_ok=True)
        record = measurement.record
        write_whole(place / "prediction.json", json.dumps(record) + "\n")
        figures.plot_errors(record, place / "prediction.png")
        figures.plot_gains(record, place / "gains.png")
        figures.plot_fan(record, place / "fan.png")
        figures.plot_ranks(record, place / "ranks.png")
    if settings.runs is not None:
        records = {label: measurement.record for label, measurement in measurements.items()}
        comparison = {
            "schema": SCHEMA,
            "runs": {label: {"run": record["run"], "order": own_order(record)} for label, record in records.items()},
            "differences": describe_pairs(
                {label: each.errors[own_order(each.record)] for label, each in measurements.items()}, task
            ),
        }
        write_whole(out / "comparison.json", json.dumps(comparison, indent=1) + "\n")
        figures.plot_overlay(records, out / "prediction.png")
