"""`dima infer`: how well the global state is inferred from what agents observe, by one or several inferencers.

Writes `inference.json` (`docs/inference.md` is its schema) and figures, all on the same held-out moments.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dima.run.console import Progress, announce, say
from dima.run.folder import RunFolder, new_path
from dima.run.hydra_app import run_app
from dima.run.infer_inputs import InferTask, Opened, make_task, open_runs
from dima.run.infer_record import make_record
from dima.run.infer_settings import InferSettings
from dima.run.infer_tables import print_inference
from dima.run.runtime import choose_device, default_threads, limit_threads
from dima.run.settings import read_settings
from worldmodel.atomic import write_whole
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset, read_dataset


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("infer", infer)


def infer(config: DictConfig) -> None:
    """Measure the inferencers that `config` names and write what came out."""
    if config.data is None:
        raise ConfigError("data has no value; name a dataset folder: data=DIR (dima collect makes one)")
    settings: InferSettings = read_settings(config)
    dataset = read_dataset(Path(settings.data))
    device = choose_device(settings.device)
    limit_threads(settings.num_threads or default_threads())
    opened = open_runs(settings, dataset, device)
    task = make_task(settings, dataset, opened, device)
    out = _out(settings, opened)
    folder = RunFolder.create(out, resumable=False)
    _announce(dataset, opened, task, out)
    progress = Progress(0, len(opened) + 1, counted="inferencers")
    try:
        record = make_record(settings, dataset, opened, task, progress.advance)
        _write(out, record)
    except BaseException:
        folder.remove()
        raise
    finally:
        progress.close()
    print_inference(record)
    say(f"wrote {out}")


def _out(settings: InferSettings, opened: Sequence[Opened]) -> Path:
    if settings.out is not None:
        return Path(settings.out)
    path = opened[0].saved.path
    if settings.run is not None and path is not None:
        return new_path(path / "infer", str(opened[0].saved.step))
    return new_path(Path("runs"), "infer")


def _announce(dataset: Dataset, opened: Sequence[Opened], task: InferTask, out: Path) -> None:
    steps = sum(episode.length for episode in opened[0].held_out)
    announce(
        "infer",
        {
            "task": f"{task.spec.env_id} ({task.spec.num_agents} agents)",
            **{f"run {i + 1}": _spell(each) for i, each in enumerate(opened)},
            "data": f"{dataset.path}: {steps} steps of {len(opened[0].held_out)} held-out episodes",
            "moments": f"{task.moments.num_moments}, {task.num_samples} draws each; intervals over {task.bootstrap_by}",
            "device": task.device,
            "folder": out,
        },
    )


def _spell(opened: Opened) -> str:
    saved = opened.saved
    return saved.name if saved.path is None else f"{saved.path} ({saved.name}), checkpoint {saved.step}"


def _write(out: Path, record: dict[str, Any]) -> None:
    from dima.run import inference_figures as figures  # matplotlib: slow to import

    write_whole(out / "inference.json", json.dumps(record) + "\n")
    figures.plot_scores(record, out / "inference.png")
    figures.plot_embedding(record, out / "embedding.png")
    figures.plot_density(record, out / "density.png")
    figures.plot_fan(record, out / "fan.png")
    figures.plot_ranks(record, out / "ranks.png")
