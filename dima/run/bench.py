"""`dima bench`: what each stage of training costs on this machine, on data from the real environment.

`bench.json`: `{"schema": 1, "env", "env_versions", "world_model", "preset", "num_rollouts", "horizon", "hardware",
"versions", "engine", "machine", "stages": {STAGE: ..}, "parts": {NAME: {"update_ms", "update_cpu_ms", "parameters",
"batch_size", "segment_length"}}, "policy": {"update_ms", "update_cpu_ms"}, "collect": {"env_steps_per_s"},
"imagined_steps_per_s", "imagined_steps_per_core_s", "peak_memory_mb": {"host", "device"}, "growth"}`; what was not
asked for is left out. Times are medians.

A stage: `{"ms", "cpu_ms", "unit", "count", "per_s", "per_core_s", "flops", "bytes", "share_of_matrix_rate",
"share_of_bandwidth", "peak_memory_mb"}` for one call, which does `count` of `unit`; a part's update has its share of
the batches that are gathered at once. Where a twin was timed beside it also `{"twin": TWIN, TWIN: {"ms", "cpu_ms"},
"speedup", "speedup_wall", "speedup_cpu"}`, medians over rounds of twin / own: `imagine` has the twin `eager`, `fit`
`in_turn` or `in_lanes`, whichever the engine does not do, and `collect` by workers `in_process`. `flops` counts
products, convolutions and attention; `bytes` what every operation reads and writes, caches not considered, so that
`share_of_bandwidth` may exceed 1 where they serve. CPU time is that of all threads, and of workers. Shares, and
`speedup` over `eager`, are of CPU time on a CPU and of wall time on a GPU; other twins are compared by wall time.
`peak_memory_mb` is how far one call drives up the process's memory (a GPU's, where there is one).
`collect.env_steps_per_s` is under random actions, `stages.collect` with the policy acting.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf

from dima.run.assemble import Learner, build_learner
from dima.run.bench_compare import compare, print_stages
from dima.run.bench_growth import grow
from dima.run.bench_machine import measure_machine
from dima.run.bench_measure import Measured, measure_stage
from dima.run.bench_stages import Bench
from dima.run.bench_timing import MemoryWatch
from dima.run.console import announce, say
from dima.run.folder import default_path
from dima.run.hydra_app import chosen_groups, run_app
from dima.run.manifest import describe_code, describe_hardware, describe_versions
from dima.run.runtime import derive_seed
from dima.run.settings import TrainSettings, read_settings
from envs.collector import Collector
from envs.random_agent import RandomAgent
from worldmodel.atomic import write_whole
from worldmodel.config import Config, ConfigError
from worldmodel.replay import Replay


@dataclasses.dataclass(frozen=True)
class BenchConfig(Config):
    """What is timed, beside the settings of training."""

    stages: tuple[str, ...]
    """Which stages: collect, replay, parts (or a part by its name), fit, pack, imagine, policy, checkpoint."""
    growth: tuple[Literal["agents", "state", "rollouts", "denoising_steps"], ...]
    """Against what the growth of the costs is measured."""
    compare_eager: bool
    """Time also what could be done in another way (without the engine, without workers), in turns."""
    repeats: int
    """How often each is timed, after one run that is not."""
    bench_steps: int
    """Env steps of random actions that fill the replay."""

    def validate(self) -> None:
        """Refuse to time nothing."""
        self.require(len(self.stages) + len(self.growth) >= 1, "stages", "at least one stage, or growth=[..]")
        self.require(self.repeats >= 1, "repeats", "at least 1")
        self.require(self.bench_steps >= 1, "bench_steps", "at least 1")


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
    else:
        run_app("bench", bench)


def bench(config: DictConfig) -> None:
    """Time what `config` asks for and write bench.json, with growth.png beside it."""
    own, config = _split(config)
    settings: TrainSettings = read_settings(config)
    choices = chosen_groups()
    learner = build_learner(settings)
    file = _place(settings, choices)
    announce(
        "bench",
        {
            "task": learner.spec.env_id,
            "model": f"{type(learner.model).__name__}, preset {choices['preset']}",
            "parameters": learner.describe_parameters(),
            "imagination": f"{settings.policy.num_rollouts} rollouts of {settings.policy.horizon} steps",
            "device": f"{learner.device}, {torch.get_num_threads()} threads",
            "file": file,
        },
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "schema": 1,
        "env": learner.spec.env_id,
        "env_versions": dict(learner.spec.versions),
        "world_model": choices["world_model"],
        "preset": choices["preset"],
        "num_rollouts": settings.policy.num_rollouts,
        "horizon": settings.policy.horizon,
        "engine": dataclasses.asdict(settings.engine),
        **describe_code(),
        "hardware": describe_hardware(learner.device),
        "versions": describe_versions(),
        **_measure(own, settings, learner, file.parent),
    }
    if own.growth:
        result["growth"] = grow(own.growth, settings, own.repeats, learner.device, compare_eager=own.compare_eager)
    write_whole(file, json.dumps(result, indent=2) + "\n")
    print_stages(result)
    if own.growth:
        _draw_growth(result, file)
    say(f"wrote {file}")


def _split(config: DictConfig) -> tuple[BenchConfig, DictConfig]:
    """What is this command's own, and the settings of training."""
    names = [field.name for field in dataclasses.fields(BenchConfig)]
    own: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, names), resolve=True)
    return BenchConfig(**own), OmegaConf.masked_copy(config, [str(key) for key in config if key not in names])


def _place(settings: TrainSettings, choices: dict[str, str]) -> Path:
    """Where bench.json goes.

    Raises:
        ConfigError: when a run is there.
    """
    out = Path(settings.out) if settings.out else default_path("bench", choices["env"], choices["preset"])
    file = out / "bench.json" if out.suffix != ".json" else out
    if (file.parent / "config.yaml").exists():
        raise ConfigError(f"out = {str(out)!r} holds a run; choose another place for bench.json")
    return file


def _measure(own: BenchConfig, settings: TrainSettings, learner: Learner, folder: Path) -> dict[str, Any]:
    """The stages, then the machine: what it can do at most needs memory that no stage does."""
    if not own.stages:
        return {}
    num_envs, device = settings.trainer.num_envs, learner.device
    replay = settings.replay.build(learner.spec, num_envs, device)
    collector = Collector(settings.env_config, num_envs, derive_seed(settings.seed, "collect"))
    memory = MemoryWatch(device)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bench-") as scratch:
        bench = Bench(settings, learner, replay, collector, Path(scratch), own.compare_eager)
        stages = bench.stages(own.stages)
        env_steps_per_s = _fill(replay, collector, learner, num_envs * -(-own.bench_steps // num_envs))
        measured = {stage.name: measure_stage(stage, own.repeats, device, memory) for stage in stages}
    collector.close()
    peak = memory.peak_mb()
    machine = measure_machine(device, with_bfloat16=settings.engine.imagines_in_bfloat16)
    low = {"imagine"} if settings.engine.imagines_in_bfloat16 else set[str]()
    records = {
        "machine": machine.as_json(),
        "stages": {name: one.as_json(machine, device, is_bfloat16=name in low) for name, one in measured.items()},
    }
    return {**records, **_older_keys(measured, learner, env_steps_per_s), "peak_memory_mb": peak}


def _fill(replay: Replay, collector: Collector, learner: Learner, num_steps: int) -> float:
    """Put real transitions under random actions into `replay`; how many of them a second were collected."""
    agent = RandomAgent(learner.spec, learner.randomness.generator("explore", "cpu"))
    began = time.perf_counter()
    trajectories = collector.collect(agent, num_steps=num_steps)
    env_steps_per_s = num_steps / (time.perf_counter() - began)
    for trajectory in trajectories:
        learner.model.update_statistics(trajectory)
        replay.append(trajectory)
    return env_steps_per_s


def _older_keys(measured: dict[str, Measured], learner: Learner, env_steps_per_s: float) -> dict[str, Any]:
    """The figures that bench.json has had from the beginning, which other tools read."""
    result: dict[str, Any] = {}
    if "collect" in measured:
        result["collect"] = {"env_steps_per_s": round(env_steps_per_s, 1)}
    parts = {name: part for name, part in learner.model.parts().items() if name in measured}
    if parts:
        result["parts"] = {
            name: {
                **_update(measured[name]),
                "parameters": sum(p.numel() for p in part.parameters() if p.requires_grad),
                "batch_size": part.optim.batch_size,
                "segment_length": part.segment_length,
            }
            for name, part in parts.items()
        }
    if "imagine" in measured:
        timing, count = measured["imagine"].timing, measured["imagine"].stage.count
        result["imagined_steps_per_s"] = round(count / timing.wall_s, 1)
        result["imagined_steps_per_core_s"] = round(count / timing.cpu_s, 1)
    if "policy" in measured:
        result["policy"] = _update(measured["policy"])
    return result


def _update(measured: Measured) -> dict[str, float]:
    timing = measured.timing
    return {"update_ms": round(1e3 * timing.wall_s, 3), "update_cpu_ms": round(1e3 * timing.cpu_s, 3)}


def _draw_growth(result: dict[str, Any], file: Path) -> None:
    from dima.run.bench_growth_figure import draw_growth  # matplotlib costs a second that nobody else should pay

    path = file.with_name("growth.png" if file.name == "bench.json" else f"{file.stem}-growth.png")
    draw_growth(result, path)
    say(f"drew {path}")
