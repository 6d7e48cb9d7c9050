"""CPU time of DIMA against the number of agents: a denoising step, an imagined env step, an update of each part.

    python benchmarks/prediction/scaling.py OUT [--agents 2 4 8 17 32 64] [--repeats 9]

toy/linear with a state of fixed size, preset=cpu, one thread; noise levels by the default rule, so that an imagined
step of N > 2 agents is N denoising steps. Writes OUT/scaling.json and OUT/scaling.png. Every repeat goes through all
numbers of agents, so that a machine that becomes slower does so for all; medians over repeats, bars: quartiles.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from hydra import compose, initialize_config_module

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from dima.run.assemble import build_learner
from dima.run.bench_stages import update_call
from dima.run.bench_timing import time_twins
from dima.run.manifest import describe_code, describe_hardware, describe_versions
from dima.run.optimize import PartOptimizer
from dima.run.prediction_figures.style import RC, SMALL, WIDTH, save
from dima.run.settings import TrainSettings, read_settings
from dima.sampler import sample_next_state
from dima.world_model import DimaWorldModel
from envs.collector import Collector
from envs.random_agent import RandomAgent
from worldmodel.atomic import write_whole
from worldmodel.replay import Replay

STATE_DIM = 16
NUM_ROLLOUTS = 128
NUM_TRANSITIONS = 200

STEP = "one denoising step"
IMAGINED = "one imagined env step"
UPDATE = "one update of "

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--agents", type=int, nargs="+", default=[2, 4, 8, 17, 32, 64])
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    if len(asked.agents) < 2 or min(asked.agents) < 1 or asked.repeats < 1:
        parser.error("at least two numbers of agents, each at least 1, and 1 repeat")
    stages = {num_agents: build_stages(num_agents) for num_agents in asked.agents}
    times = measure(stages, asked.repeats)
    names = next(iter(times.values())).keys()
    result: dict[str, Any] = {
        "schema": 1,
        "env": "toy/linear",
        "preset": "cpu",
        "state_dim": STATE_DIM,
        "num_rollouts": NUM_ROLLOUTS,
        "repeats": asked.repeats,
        "num_agents": asked.agents,
        "unit": "milliseconds of CPU time",
        "times": {name: describe(asked.agents, [times[number][name] for number in asked.agents]) for name in names},
        "hardware": describe_hardware(torch.device("cpu")),
        "versions": describe_versions(),
        **describe_code(),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    write_whole(asked.out / "scaling.json", json.dumps(result, indent=1) + "\n")
    with matplotlib.rc_context(RC):
        save(draw(result), asked.out / "scaling.png")
    for name, figures in result["times"].items():
        line = figures["line"]
        print(f"{name}: {line['intercept_ms']:.3g} + {line['per_agent_ms']:.3g} N ms, r2 {line['r2']:.3f}")
    print(asked.out)


def build_stages(num_agents: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed, by name: a call, and how many of the named things it does."""
    with initialize_config_module("configs", version_base="1.3"):
        sizes = [f"env.num_agents={num_agents}", f"env.state_dim={STATE_DIM}"]
        machine = ["preset=cpu", "device=cpu", "num_threads=1", "seed=0"]
        settings: TrainSettings = read_settings(compose("train", ["env=toy/linear", *sizes, *machine]))
    learner = build_learner(settings)
    model = learner.model
    assert isinstance(model, DimaWorldModel)
    replay = _fill(settings, model)
    generator = torch.Generator().manual_seed(0)
    context = replay.sample_contexts(NUM_ROLLOUTS, model.context_length, generator)
    action = 2 * torch.rand(NUM_ROLLOUTS, num_agents, model.spec.action_dim, generator=generator) - 1

    def imagine_step() -> None:
        model.train(False)
        model.step(model.start(context, generator=generator), action, generator=generator)

    with torch.no_grad():
        start = model.start(context, generator=generator)

    @torch.no_grad()
    def denoise() -> None:
        model.train(False)
        past = model.config.sigma_data * start.z, start.past_action
        with model.denoiser.frozen():
            sample_next_state(model.denoiser, model.reveal, model.config.sampler, *past, action, generator)

    updates = {f"{UPDATE}{name}": (_update(name, replay, model, generator), 1) for name in model.parts()}
    return {STEP: (denoise, model.reveal.num_steps), IMAGINED: (imagine_step, 1), **updates}


def _fill(settings: TrainSettings, model: DimaWorldModel) -> Replay:
    """Real transitions under random actions."""
    replay = settings.replay.build(model.spec, 1, torch.device("cpu"))
    collector = Collector(settings.env_config, 1, settings.seed)
    for trajectory in collector.collect(RandomAgent(model.spec, torch.Generator()), num_steps=NUM_TRANSITIONS):
        model.update_statistics(trajectory)
        replay.append(trajectory)
    collector.close()
    return replay


def _update(name: str, replay: Replay, model: DimaWorldModel, generator: torch.Generator) -> Callable[[], None]:
    """Draw a batch, forward, backward, step."""
    update = update_call(PartOptimizer(name, model.parts()[name]), replay, generator)

    def train() -> None:
        model.train(True)
        update()

    return train


def measure(
    stages: dict[int, dict[str, tuple[Callable[[], object], int]]], repeats: int
) -> dict[int, dict[str, list[float]]]:
    """Milliseconds of CPU time of every stage, by number of agents; the first round warms up and does not count."""
    calls = {(number, name): call for number, named in stages.items() for name, (call, _) in named.items()}
    timings = time_twins(calls, repeats, torch.device("cpu"))
    return {
        number: {
            name: [1e3 * timing.cpu_s / count for timing in timings[number, name]] for name, (_, count) in named.items()
        }
        for number, named in stages.items()
    }


def describe(num_agents: list[int], times: list[list[float]]) -> dict[str, Any]:
    """Medians and quartiles, and the least-squares line through the medians."""
    agents, medians = np.asarray(num_agents, dtype=float), np.median(times, axis=1)
    slope, intercept = np.polyfit(agents, medians, 1)
    left = medians - (intercept + slope * agents)
    spread = ((medians - medians.mean()) ** 2).sum()
    return {
        "median_ms": medians.round(4).tolist(),
        "quartiles_ms": np.quantile(times, [0.25, 0.75], axis=1).T.round(4).tolist(),
        "line": {
            "intercept_ms": round(float(intercept), 5),
            "per_agent_ms": round(float(slope), 6),
            "r2": round(float(1 - (left**2).sum() / spread), 5) if spread > 0 else 1.0,
        },
    }


def draw(result: dict[str, Any]) -> Figure:
    """A panel for the denoising step, the imagined step and the updates, each with its lines."""
    parts = [name for name in result["times"] if name.startswith(UPDATE)]
    panels = {"one denoising step": [STEP], "one imagined env step": [IMAGINED], "one update": parts}
    figure, row = plt.subplots(1, len(panels), figsize=(WIDTH, 2.5), layout="constrained")
    agents = result["num_agents"]
    ends = np.array([0, max(agents)])
    for axes, (title, names) in zip(row, panels.items(), strict=True):
        for name, color in zip(names, COLORS, strict=False):
            figures = result["times"][name]
            line = figures["line"]
            label = f"{line['intercept_ms']:.2g} {line['per_agent_ms']:+.2g} N"
            several = f"{name.removeprefix(UPDATE).replace('_', ', ')}: {label}"
            label = several if len(names) > 1 else f"{label},  $r^2$ = {line['r2']:.3f}"
            median, quartiles = np.array(figures["median_ms"]), np.array(figures["quartiles_ms"]).T
            axes.errorbar(agents, median, abs(quartiles - median), fmt="o", color=color, elinewidth=0.8)
            axes.plot(ends, line["intercept_ms"] + line["per_agent_ms"] * ends, color=color, linewidth=1, label=label)
        axes.set(title=title, xlabel="agents N", xlim=(0, None))
        axes.set_ylim(0, axes.get_ylim()[1] * (1.05 + 0.12 * len(names)))
        axes.legend(loc="upper left", fontsize=SMALL, handlelength=1.2)
    row[0].set_ylabel(f"CPU time in ms, {result['num_rollouts']} rollouts")
    row[2].set_ylabel("CPU time in ms, one batch")
    return figure


if __name__ == "__main__":
    main()
