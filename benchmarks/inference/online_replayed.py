"""The online updates of a finished run, done again with other settings of `inference`.

    python benchmarks/inference/online_replayed.py RUN FIT OUT.json "rehearsal=0.8 learning_rate=0.2" [SETTINGS ..]

While it trains, a run collects with the true state: what it collects does not depend on the inferencer. So its
episodes, read from the replay of its last checkpoint, and the fit are all it takes to do the updates again: after every
episode `updates` steps, with the run's other settings. OUT keeps what it holds, so that settings can be added to it
(with none named, only the figure OUT.png is drawn anew). From the folder that FIT's `data` is relative to.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from dima.run.figure_style import RC
from dima.run.inference_training import InferenceTraining
from dima.run.metrics import RoundMetrics
from dima.run.runtime import Randomness
from dima.run.saved_inference import open_inference
from dima.run.saved_run import SavedRun, open_run
from worldmodel.types import Trajectory

KEYS = ("inference/old_error", "inference/new_error_before", "inference/kept_step")


def main() -> None:
    """Follow the errors with every choice of settings and write them after each."""
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    run_path, fit, out, choices = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]
    torch.set_num_threads(1)
    run = open_run(run_path, "latest", "cpu", 1, "evaluate")
    episodes = read_episodes(Path(run_path) / "checkpoints" / "latest")
    record: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    record |= {"fit": fit, "episodes": len(episodes), "updates": run.settings.inference.updates}
    for choice in choices:
        words = dict(word.split("=") for word in choice.split())
        record[choice] = follow(run, fit, episodes, {name: json.loads(value) for name, value in words.items()})
        print(choice, [f"{row[KEYS[0]]:.4f}" for row in record[choice]], flush=True)
        out.write_text(json.dumps(record, indent=1) + "\n")
    draw(record, out.with_suffix(".png"))


def draw(record: dict[str, Any], path: Path) -> None:
    """Both errors over the episodes, a colour for each choice of settings."""
    panels = {KEYS[0]: "held-out states of the fit's data", KEYS[1]: "the run's own states, before the update"}
    with plt.rc_context(RC):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
        for choice, rows in record.items():
            if isinstance(rows, list):
                for axes, key in ((left, KEYS[0]), (right, KEYS[1])):
                    points = [(episode, row[key]) for episode, row in enumerate(rows) if key in row]
                    axes.plot(*zip(*points, strict=True), marker="o", markersize=2.5, label=choice)
        for axes, title in zip((left, right), panels.values(), strict=True):
            axes.set(xlabel="episodes of the run", title=title)
        left.set_ylabel("squared error of one draw")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=6)
        figure.savefig(path, dpi=160)
        plt.close(figure)


def read_episodes(checkpoint: Path) -> list[Trajectory]:
    """The whole episodes of a run with one stream of environments, in the order in which they were collected."""
    from safetensors.torch import load_file

    rows: dict[str, Tensor] = {
        name.removeprefix("state."): tensor for name, tensor in load_file(checkpoint / "replay.safetensors").items()
    }
    episodes, first = [], 0
    for end in (rows["terminated"] | rows["truncated"]).nonzero().flatten().tolist():
        last = end + 1  # the row of the final state, which has no action
        by_state: dict[str, Any] = {name: rows[name][first : last + 1] for name in ("obs", "state")}
        by_step: dict[str, Any] = {
            name: rows[name][first:last] for name in ("action", "reward", "terminated", "truncated")
        }
        episodes.append(Trajectory(**by_state, **by_step))
        first = last + 1
    return episodes


def follow(run: SavedRun, fit: str, episodes: list[Trajectory], chosen: dict[str, Any]) -> list[dict[str, float]]:
    """Errors before the first and after every episode, with the settings `chosen`."""
    spec, settings = run.learner.spec, run.settings
    saved = open_inference(fit, spec, settings.env, torch.device("cpu"))
    known = {"run": fit, "name": saved.name, "fit": saved.settings, "every_episodes": 1}
    config = dataclasses.replace(settings.inference, **(known | chosen))
    training = InferenceTraining(config, spec, Randomness(settings.seed, torch.device("cpu")))
    training.load_weights(saved.inference.state_dict())
    replay = settings.replay.build(spec, 1)
    rows = [_measured(training.measure)]
    for episode in episodes:
        replay.append(episode)
        rows.append(_measured(lambda metrics: training.after_episodes(1, replay, metrics)))
    return rows


def _measured(work: Any) -> dict[str, float]:
    metrics = RoundMetrics(torch.device("cpu"))
    work(metrics)
    row = metrics.collect()
    return {key: row[key] for key in KEYS if key in row}


if __name__ == "__main__":
    main()
