"""`dima predict`: long-horizon prediction error of one or several world models, across the orders of the agents.

Writes `prediction.json` (`docs/prediction.md` is its schema) and figures; with several runs one folder for each, and a
comparison on the same segments.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from dima.run.console import Progress, announce, say
from dima.run.fit import FitSettings
from dima.run.fit import split as split_as_fitted
from dima.run.folder import RunFolder, new_path
from dima.run.hydra_app import run_app
from dima.run.prediction import Task, variants
from dima.run.prediction_figures.overlay import own_order
from dima.run.prediction_gain import TrueChanges, true_changes
from dima.run.prediction_record import Measurement, Opened, measure_run
from dima.run.prediction_schema import SCHEMA
from dima.run.prediction_tables import describe_pairs, print_prediction
from dima.run.runtime import DeviceChoice, derive_seed
from dima.run.saved_run import SavedModel, open_model
from dima.run.settings import read_settings
from worldmodel.atomic import write_whole
from worldmodel.config import Config, ConfigError
from worldmodel.dataset import Dataset, read_dataset, require_same_task
from worldmodel.types import Trajectory


@dataclasses.dataclass(frozen=True)
class PredictSettings(Config):
    """Everything that `dima predict` is told."""

    run: str | None
    """The run folder of `dima train` or `dima fit`."""
    runs: tuple[str, ...] | None
    """Several, to be compared."""
    data: str
    """The dataset folder."""
    orders: tuple[str | tuple[int, ...], ...]
    """Orders of the agents to compare."""
    horizon: int
    """H: imagined steps."""
    segments: int
    """B: stretches of real episodes."""
    samples: int
    """M: draws for each."""
    held_out: float
    """Share of the episodes to measure on."""
    gain_states: int
    """Moments at which actions are changed; 0: none."""
    gain_samples: int
    """Draws for each moment."""
    perturbation_std: float
    """Standard deviation of the change of an agent's action."""
    resamples: int
    """Of the bootstrap."""
    resample: Literal["segments", "episodes"]
    """What the bootstrap draws: segments, or whole episodes with the segments in them."""
    num_denoising_steps: int | None
    """Another number of noise levels than the model's own."""
    solver: str | None
    """Another solver than the model's own."""
    checkpoint: int | str
    """`latest`, or the number of a checkpoint."""
    seed: int
    """Of segments, noise and perturbations."""
    device: DeviceChoice
    """Where the model lives."""
    num_threads: int | None
    """CPU threads of torch; null: as in training."""
    out: str | None
    """Where to write."""

    def validate(self) -> None:
        """Refuse what cannot be measured."""
        self.require((self.run is None) != (self.runs is None), "run", "a run folder, or several with runs=[..]")
        self.require(self.runs is None or len(set(self.runs)) == len(self.runs) > 0, "runs", "different run folders")
        self.require(len(set(self.orders)) == len(self.orders) > 0, "orders", "at least one order, none twice")
        for name in ("horizon", "segments", "samples", "gain_samples"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(0 < self.held_out < 1, "held_out", "a share between 0 and 1")
        self.require(self.gain_states >= 0, "gain_states", "at least 0")
        self.require(self.perturbation_std > 0, "perturbation_std", "above 0")
        self.require(self.resamples >= 100, "resamples", "at least 100")
        self.require(self.seed >= 0, "seed", "at least 0")

    def generator(self, name: str) -> torch.Generator:
        """A fresh generator for the stream `name`."""
        return torch.Generator().manual_seed(derive_seed(self.seed, f"predict/{name}"))


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("predict", predict)


def predict(config: DictConfig) -> None:
    """Measure the runs that `config` names and write what came out."""
    if config.data is None:
        raise ConfigError("data has no value; name a dataset folder: data=DIR (dima collect makes one)")
    settings: PredictSettings = read_settings(config)
    dataset = read_dataset(Path(settings.data))
    opened = [_open(run, settings, dataset) for run in settings.runs or (settings.run,) if run is not None]
    _require_common_data(opened)
    out = _out(settings, opened)
    folder = RunFolder.create(out)
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


def _open(run: str, settings: PredictSettings, dataset: Dataset) -> Opened:
    saved = open_model(run, settings.checkpoint, settings.device, settings.num_threads, "predict")
    require_same_task(dataset, saved.spec, f"run {run}")
    model = _resampled(saved.model, settings)
    training, held_out = _split(saved, settings, dataset)
    return Opened(_label(run, settings), saved, variants(model, settings.orders), training, held_out)


def _resampled(model: Any, settings: PredictSettings) -> Any:
    """The model with another number of denoising steps or another solver, where asked for."""
    if settings.num_denoising_steps is None and settings.solver is None:
        return model
    if not hasattr(model, "with_sampling"):
        raise ConfigError(f"num_denoising_steps and solver: {type(model).__name__} has no such choice")
    return model.with_sampling(settings.num_denoising_steps, settings.solver)


def _split(saved: SavedModel, settings: PredictSettings, dataset: Dataset) -> tuple[list[Trajectory], list[Trajectory]]:
    """(what baselines are fitted on, what is measured on); a fit's own split where it was fitted on this dataset."""
    fitted = saved.manifest.get("data", {})
    if isinstance(saved.settings, FitSettings) and fitted.get("fingerprint") == dataset.fingerprint:
        training, held_out = split_as_fitted(dataset, saved.settings)
        if not held_out:
            raise ConfigError(f"{saved.path} was fitted on all of {dataset.path}: measure it on another dataset")
        return training, held_out
    kept = set(dataset.held_out(settings.held_out))
    episodes = list(enumerate(dataset.trajectories))
    return [e for number, e in episodes if number not in kept], [e for number, e in episodes if number in kept]


def _require_common_data(opened: Sequence[Opened]) -> None:
    """Models can be compared on episodes only that none of them was fitted on."""
    first = opened[0]
    for other in opened[1:]:
        if [id(episode) for episode in other.held_out] != [id(episode) for episode in first.held_out]:
            both = f"{first.saved.path} and {other.saved.path}"
            raise ConfigError(f"{both} hold out different episodes: fit them with the same held_out")


def _label(run: str, settings: PredictSettings) -> str:
    """What a run is called among the others: its folder's name, with the folders above where two share it."""
    parts = Path(run).resolve().parts
    others = [Path(other).resolve().parts for other in settings.runs or () if other != run]
    depth = 1
    while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in others):
        depth += 1
    return "-".join(parts[-depth:])


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
                _true_changes(settings, task, each),
                gain_samples=settings.gain_samples,
                seed=settings.seed,
                advance=progress.advance,
            )
    finally:
        progress.close()
    return task, measurements


def _true_changes(settings: PredictSettings, task: Task, opened: Opened) -> TrueChanges:
    if settings.gain_states == 0:
        return TrueChanges(None, None, None, settings.perturbation_std, "left out: gain_states=0")
    return true_changes(
        opened.saved.settings.env,
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
                {label: each.measured[own_order(each.record)].errors for label, each in measurements.items()}, task
            ),
        }
        write_whole(out / "comparison.json", json.dumps(comparison, indent=1) + "\n")
        figures.plot_overlay(records, out / "prediction.png")
