"""What training holds in memory, and whether that grows: a full replay, then imagining and policy updates for minutes.

    python benchmarks/memory.py OUT [--minutes 30] [--preset paper] [--rollouts 4096] [--horizon 15]
                                [--transitions 250000] [KEY=VALUE ...]

The environment is Ant-4x2 by its sizes, filled with noise: no simulator runs. Writes OUT/memory.json (resident memory
after every iteration) and OUT/memory.png. A leak shows as a slope: growth per minute in the first five minutes after
warming up, and in the last five.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from hydra import compose, initialize_config_module

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from dima.run.bench_growth import synthetic_episode
from dima.run.bench_timing import resident_kb
from dima.run.engine import Imagination
from dima.run.manifest import describe_code, describe_hardware, describe_versions
from dima.run.prediction_figures.style import RC, SMALL, WIDTH, save
from dima.run.runtime import Randomness, choose_device, default_threads, keep_freed_memory, limit_threads
from dima.run.settings import TrainSettings, read_settings
from worldmodel.atomic import write_whole
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec

ANT_4X2 = EnvSpec("mamujoco/ant-4x2", 4, 105, (105,) * 4, (2,) * 4, episode_steps=1000, appends_agent_id=True)
"""Sizes with full observations (`env.obs_mode=full`)."""

WARMUP_S, WINDOW_S = 60.0, 300.0


def main() -> None:
    """Fill, repeat, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--rollouts", type=int, default=4096)
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--transitions", type=int, default=250_000)
    parser.add_argument("overrides", nargs="*", help="as on the command line of dima train")
    asked = parser.parse_intermixed_args()
    if asked.minutes <= 0 or min(asked.rollouts, asked.horizon, asked.transitions) < 1:
        parser.error("minutes, rollouts, horizon and transitions: more than 0")
    sizes = [f"policy.num_rollouts={asked.rollouts}", f"policy.horizon={asked.horizon}"]
    with initialize_config_module("configs", version_base="1.3"):
        settings: TrainSettings = read_settings(compose("train", [f"preset={asked.preset}", *sizes, *asked.overrides]))
    limit_threads(settings.num_threads or default_threads())
    keep_freed_memory()
    device = choose_device(settings.device)
    replay, filled = fill_replay(asked.transitions, device)
    print(
        f"replay of {replay.num_transitions:,} transitions: {filled['promised_mb']:.1f} MB promised,"
        f" {filled['resident_mb']:.1f} MB resident"
    )
    series = soak(settings, replay, 60 * asked.minutes, device)
    result: dict[str, Any] = {
        "schema": 1,
        "env": ANT_4X2.env_id,
        "preset": asked.preset,
        "num_rollouts": asked.rollouts,
        "horizon": asked.horizon,
        "overrides": asked.overrides,
        "replay": filled,
        **series,
        "slopes_mb_per_minute": slopes(series["time_s"], series["resident_mb"]),
        "hardware": describe_hardware(device),
        "versions": describe_versions(),
        **describe_code(),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    write_whole(asked.out / "memory.json", json.dumps(result) + "\n")
    with matplotlib.rc_context(RC):
        save(draw(result), asked.out / "memory.png")
    for name, slope in result["slopes_mb_per_minute"].items():
        print(f"{name}: " + ("too short to say" if slope is None else f"{slope:+.3f} MB a minute"))
    print(asked.out)


def fill_replay(num_transitions: int, device: torch.device) -> tuple[Replay, dict[str, float]]:
    """A replay with no row left, what its docstring promises and how far resident memory rose, in 10^6 bytes."""
    spec = ANT_4X2
    episodes = -(-num_transitions // spec.episode_steps)
    capacity = num_transitions + episodes  # the final state of every episode takes a row
    generator = torch.Generator().manual_seed(0)
    synthetic_episode(spec, spec.episode_steps, generator)  # what the first call loads is not the replay's
    gc.collect()
    before = resident_kb()
    replay = ReplayConfig(capacity, "uniform").build(spec, 1, device)
    while replay.num_transitions < num_transitions:
        steps = min(spec.episode_steps, num_transitions - replay.num_transitions)
        replay.append(synthetic_episode(spec, steps, generator))
    gc.collect()
    row = 4 * (spec.num_agents * spec.obs_dim + spec.state_dim + spec.num_agents * spec.action_dim + 1) + 2
    risen = 1024 * (resident_kb() - before)
    return replay, {"transitions": num_transitions, "promised_mb": capacity * row / 1e6, "resident_mb": risen / 1e6}


def soak(settings: TrainSettings, replay: Replay, seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Imagine and update the policy for `seconds`; the time and the resident memory (10^6 bytes) after every iteration.

    On a GPU also what torch has allocated there.
    """
    behaviour, generator = settings.policy, Randomness(settings.seed, device).generator("memory")
    model = settings.world_model_config.build(ANT_4X2)
    model.to(device)
    model.update_statistics(synthetic_episode(ANT_4X2, ANT_4X2.episode_steps, torch.Generator().manual_seed(1)))
    model.train(False)
    mappo = behaviour.build(ANT_4X2, model, device)
    imagination = Imagination(model, mappo.policy, behaviour.horizon, generator, settings.engine, behaviour.uncertainty)
    times, resident, allocated = list[float](), list[float](), list[float]()
    began = time.monotonic()
    while not times or times[-1] < seconds:
        context = replay.sample_contexts(behaviour.num_rollouts, model.context_length, generator)
        imagination.refresh()  # as in every round of training
        mappo.update(imagination.rollout(context), generator)
        times.append(round(time.monotonic() - began, 2))
        resident.append(round(1024 * resident_kb() / 1e6, 3))
        if device.type == "cuda":
            allocated.append(round(torch.cuda.memory_allocated(device) / 1e6, 3))
    return {"time_s": times, "resident_mb": resident} | ({"allocated_mb": allocated} if allocated else {})


def slopes(times: list[float], resident: list[float]) -> dict[str, float | None]:
    """Growth per minute in the five minutes after warming up and in the last five; None where a window is too short."""
    time_s, mb = np.array(times), np.array(resident)
    end = time_s[-1]
    warm = min(WARMUP_S, end / 4)
    window = min(WINDOW_S, (end - warm) / 2)
    spans = {"first_after_warmup": (warm, warm + window), "last": (end - window, end)}
    found: dict[str, float | None] = {}
    for name, (first, last) in spans.items():
        inside = (time_s >= first) & (time_s <= last)
        is_enough = inside.sum() >= 3
        found[name] = round(60 * float(np.polyfit(time_s[inside], mb[inside], 1)[0]), 4) if is_enough else None
    return found


def draw(result: dict[str, Any]) -> Figure:
    """Resident memory against time."""
    figure, axes = plt.subplots(figsize=(0.6 * WIDTH, 2.4), layout="constrained")
    minutes = np.array(result["time_s"]) / 60
    axes.plot(minutes, result["resident_mb"], color="#0072B2", marker="." if len(minutes) < 60 else "")
    axes.set(xlabel="time in minutes", ylabel="resident memory in MB", xlim=(0, None))
    axes.set_ylim(0, 1.15 * max(result["resident_mb"]))
    said = [
        f"{name.replace('_', ' ')}: {slope:+.2f} MB/min"
        for name, slope in result["slopes_mb_per_minute"].items()
        if slope is not None
    ]
    axes.text(0.97, 0.06, "\n".join(said), transform=axes.transAxes, ha="right", fontsize=SMALL)
    sizes = f"{result['num_rollouts']} rollouts of {result['horizon']} steps"
    axes.set_title(f"{result['env']}, preset {result['preset']}, {sizes}", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
