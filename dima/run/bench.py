"""`dima bench`: how long each stage of training takes on this machine, on data from the real environment.

`bench.json`: `{"schema": 1, "env", "env_versions", "world_model", "preset", "num_rollouts", "horizon", "hardware",
"versions", "parts": {NAME: {"update_ms", "update_cpu_ms", "parameters", "batch_size", "segment_length"}}, "policy":
{"update_ms", "update_cpu_ms"}, "collect": {"env_steps_per_s"}, "imagined_steps_per_s", "imagined_steps_per_core_s",
"peak_memory_mb": {"host", "device"}}`; stages that were not asked for are left out. Times are medians.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from dima.run.assemble import Learner, build_learner
from dima.run.console import announce, say
from dima.run.folder import default_path
from dima.run.hydra_app import chosen_groups, run_app
from dima.run.manifest import describe_code, describe_hardware, describe_versions
from dima.run.optimize import PartOptimizer
from dima.run.runtime import derive_seed
from dima.run.settings import TrainSettings, read_settings
from envs.collector import Collector
from envs.random_agent import RandomAgent
from imagination.rollout import imagine
from worldmodel.atomic import write_whole
from worldmodel.config import Config, ConfigError
from worldmodel.replay import Replay

Stage = Literal["collect", "parts", "imagine", "policy"]


@dataclasses.dataclass(frozen=True)
class BenchConfig(Config):
    """What is timed, beside the settings of training."""

    stages: tuple[Stage, ...]
    """Which stages: collect, parts, imagine, policy."""
    repeats: int
    """How often each is timed, after one run that is not."""
    bench_steps: int
    """Env steps of random actions that fill the replay."""

    def validate(self) -> None:
        """Refuse to time nothing."""
        self.require(len(self.stages) >= 1, "stages", "at least one of collect, parts, imagine, policy")
        self.require(self.repeats >= 1, "repeats", "at least 1")
        self.require(self.bench_steps >= 1, "bench_steps", "at least 1")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Medians for one call: wall-clock seconds, and seconds of CPU time over all threads of this process."""

    wall_s: float
    cpu_s: float

    def as_update(self) -> dict[str, float]:
        """In milliseconds, as bench.json spells them."""
        return {"update_ms": round(1e3 * self.wall_s, 3), "update_cpu_ms": round(1e3 * self.cpu_s, 3)}


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("bench", bench)


def bench(config: DictConfig) -> None:
    """Time the stages that `config` asks for and write bench.json."""
    own, config = _split(config)
    settings: TrainSettings = read_settings(config)
    choices = chosen_groups()
    learner = build_learner(settings)
    out = Path(settings.out) if settings.out else default_path("bench", choices["env"], choices["preset"])
    file = out / "bench.json" if out.suffix != ".json" else out
    if (file.parent / "config.yaml").exists():
        raise ConfigError(f"out = {str(out)!r} holds a run; choose another place for bench.json")
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
    measured = _measure(own, settings, learner)
    result: dict[str, Any] = {
        "schema": 1,
        "env": learner.spec.env_id,
        "env_versions": dict(learner.spec.versions),
        "world_model": choices["world_model"],
        "preset": choices["preset"],
        "num_rollouts": settings.policy.num_rollouts,
        "horizon": settings.policy.horizon,
        **describe_code(),
        "hardware": describe_hardware(learner.device),
        "versions": describe_versions(),
        **measured,
        "peak_memory_mb": _peak_memory_mb(learner.device),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(result, indent=2) + "\n")
    _print_table(result)
    say(f"wrote {file}")


def _split(config: DictConfig) -> tuple[BenchConfig, DictConfig]:
    """What is this command's own, and the settings of training."""
    names = [field.name for field in dataclasses.fields(BenchConfig)]
    own: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, names), resolve=True)
    return BenchConfig(**own), OmegaConf.masked_copy(config, [str(key) for key in config if key not in names])


def _measure(own: BenchConfig, settings: TrainSettings, learner: Learner) -> dict[str, Any]:
    result: dict[str, Any] = {}
    replay, env_steps_per_s = _fill_replay(own, settings, learner)
    if "collect" in own.stages:
        result["collect"] = {"env_steps_per_s": round(env_steps_per_s, 1)}
    if "parts" in own.stages:
        result["parts"] = _time_parts(own.repeats, learner, replay)
    generator = learner.randomness.generator("imagination")
    num_rollouts, horizon = settings.policy.num_rollouts, settings.policy.horizon

    def imagine_once() -> Any:
        context = replay.sample_contexts(num_rollouts, learner.model.context_length, generator)
        return imagine(learner.model, learner.mappo.policy, context, horizon, generator)

    learner.model.train(False)
    if "imagine" in own.stages:
        timing = _time(imagine_once, own.repeats, learner.device)
        result["imagined_steps_per_s"] = round(num_rollouts * horizon / timing.wall_s, 1)
        result["imagined_steps_per_core_s"] = round(num_rollouts * horizon / timing.cpu_s, 1)
    if "policy" in own.stages:
        rollout = imagine_once()
        timing = _time(lambda: learner.mappo.update(rollout, generator), own.repeats, learner.device)
        result["policy"] = timing.as_update()
    return result


def _fill_replay(own: BenchConfig, settings: TrainSettings, learner: Learner) -> tuple[Replay, float]:
    """Real transitions under random actions, and how many of them a second."""
    num_envs = settings.trainer.num_envs
    replay = settings.replay.build(learner.spec, num_envs, learner.device)
    collector = Collector(settings.env_config, num_envs, derive_seed(settings.seed, "collect"))
    agent = RandomAgent(learner.spec, learner.randomness.generator("explore", "cpu"))
    num_steps = num_envs * -(-own.bench_steps // num_envs)
    began = time.perf_counter()
    trajectories = collector.collect(agent, num_steps=num_steps)
    env_steps_per_s = num_steps / (time.perf_counter() - began)
    for trajectory in trajectories:
        learner.model.update_statistics(trajectory)
        replay.append(trajectory)
    collector.close()
    return replay, env_steps_per_s


def _time_parts(repeats: int, learner: Learner, replay: Replay) -> dict[str, Any]:
    """One update of each part: draw a batch, forward, backward, step."""
    generator = learner.randomness.generator("world_model")
    result: dict[str, Any] = {}
    learner.model.train(True)
    for name, part in learner.model.parts().items():
        optimizer = PartOptimizer(name, part)

        def update(optimizer: PartOptimizer = optimizer) -> None:
            part = optimizer.part
            batch = replay.sample(part.optim.batch_size, part.segment_length, burn_in=part.burn_in, generator=generator)
            optimizer.update(batch, generator)

        timing = _time(update, repeats, learner.device)
        optimizer.require_finite()
        result[name] = {
            **timing.as_update(),
            "parameters": sum(p.numel() for p in part.parameters() if p.requires_grad),
            "batch_size": part.optim.batch_size,
            "segment_length": part.segment_length,
        }
    return result


def _time(call: Callable[[], Any], repeats: int, device: torch.device) -> Timing:
    """Medians over `repeats` calls, after one that warms up."""
    walls, cpus = [], []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Timing(statistics.median(walls[1:]), statistics.median(cpus[1:]))


def _peak_memory_mb(device: torch.device) -> dict[str, float | None]:
    """Most memory held so far: resident memory of the process, and what torch held on the GPU."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    on_device = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"host": round(host, 1), "device": None if on_device is None else round(on_device, 1)}


def _print_table(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['env']}, preset {result['preset']}, {result['hardware']['cpu']}")
    table.add_column("stage")
    table.add_column("figure", justify="right")
    for name, part in result.get("parts", {}).items():
        table.add_row(f"one update of {name}", f"{part['update_ms']:.1f} ms")
    if "policy" in result:
        table.add_row("one policy update", f"{result['policy']['update_ms']:.1f} ms")
    if "imagined_steps_per_s" in result:
        table.add_row("imagined env steps per second", f"{result['imagined_steps_per_s']:,.0f}")
        table.add_row("imagined env steps per second of CPU time", f"{result['imagined_steps_per_core_s']:,.0f}")
    if "collect" in result:
        table.add_row("real env steps per second", f"{result['collect']['env_steps_per_s']:,.0f}")
    memory = result["peak_memory_mb"]
    table.add_row("peak memory of the process", f"{memory['host']:,.0f} MB")
    if memory["device"] is not None:
        table.add_row("peak memory on the GPU", f"{memory['device']:,.0f} MB")
    Console().print(table)
