"""The stages of training as `dima bench` times them: what one call of each does, and how the calls are measured.

A world model's parts are stages under the names that the model gives them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dima.run.assemble import Learner
from dima.run.bench_machine import Machine
from dima.run.bench_timing import Call, Counts, MemoryWatch, Timing, count_work, median, speedup, time_twins
from dima.run.checkpoint import CheckpointStore
from dima.run.engine import EngineConfig, Imagination
from dima.run.messages import nearest
from dima.run.optimize import PartOptimizer
from dima.run.settings import TrainSettings
from envs.collector import Collector
from imagination.agent import PolicyAgent
from worldmodel.config import ConfigError
from worldmodel.protocol import TrainablePart
from worldmodel.replay import Replay

ALL_PARTS = "parts"
"""On the command line: every part of the world model."""

EAGER = "eager"


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is timed: a call, and the twin that does the same without the engine, where there is one."""

    name: str
    call: Call
    count: int
    """How many of `unit` one call does."""
    unit: str
    eager: Call | None = None
    before: Callable[[], object] | None = None
    """What has to be done once before the first call."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came out for one stage."""

    stage: Stage
    timing: Timing
    counts: Counts
    rise_mb: float
    eager: Timing | None
    speedup: float | None

    def as_json(self, machine: Machine, device: torch.device, *, is_bfloat16: bool) -> dict[str, Any]:
        """As bench.json has it under `stages`."""
        stage = self.stage
        record = {
            **_clocks(self.timing),
            "unit": stage.unit,
            "count": stage.count,
            "per_s": _rate(stage.count, self.timing.wall_s),
            "per_core_s": _rate(stage.count, self.timing.cpu_s),
            "flops": self.counts.flops,
            "bytes": self.counts.bytes,
            **machine.shares(self.counts, self.timing, device, is_bfloat16=is_bfloat16),
            "peak_memory_mb": round(self.rise_mb, 1),
        }
        if self.eager is None or self.speedup is None:
            return record
        return {**record, EAGER: _clocks(self.eager), "speedup": round(self.speedup, 3)}


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that the stages work on."""

    settings: TrainSettings
    learner: Learner
    replay: Replay
    """Holds real transitions."""
    collector: Collector
    scratch: Path
    """A folder for what the stages write, on the disk that bench.json goes to."""
    compare_eager: bool = False
    """Imagine also without the engine, in turns."""

    def stages(self, asked: Sequence[str]) -> list[Stage]:
        """The stages that `asked` names, in the order in which training goes through them.

        Raises:
            ConfigError: naming one that does not exist.
        """
        parts = dict(self.learner.model.parts())
        makers: dict[str, Callable[[], Stage]] = {"collect": self._collect, "replay": self._replay}
        for name, part in parts.items():
            makers[name] = lambda name=name, part=part: self._part(name, part)
        makers |= {"imagine": self._imagine, "policy": self._policy, "checkpoint": self._checkpoint}
        for name in asked:
            if name != ALL_PARTS and name not in makers:
                known = [*makers, ALL_PARTS]
                raise ConfigError(f"stages: there is no {nearest(name, known)} (stages: {', '.join(known)})")
        wanted = {*asked, *(parts if ALL_PARTS in asked else ())}
        return [make() for name, make in makers.items() if name in wanted]

    def _collect(self) -> Stage:
        """As training collects: the policy acts, and what comes of it goes into the statistics and the replay."""
        learner, steps = self.learner, self.settings.trainer.collect_steps
        agent = PolicyAgent(learner.model, learner.mappo.policy, self._generator("collect"), deterministic=False)

        def collect() -> None:
            learner.model.train(False)
            for trajectory in self.collector.collect(agent, num_steps=steps):
                learner.model.update_statistics(trajectory)
                self.replay.append(trajectory)

        return Stage("collect", collect, steps, "env steps")

    def _replay(self) -> Stage:
        """A training batch for each part, and the contexts of one imagination."""
        parts = list(self.learner.model.parts().values())
        generator, num_rollouts = self._generator("replay"), self.settings.policy.num_rollouts

        def draw() -> None:
            for part in parts:
                draw_batch(self.replay, part, generator)
            self.replay.sample_contexts(num_rollouts, self.learner.model.context_length, generator)

        return Stage("replay", draw, sum(part.optim.batch_size for part in parts) + num_rollouts, "segments")

    def _part(self, name: str, part: TrainablePart) -> Stage:
        model, generator = self.learner.model, self._generator("world_model")
        update = update_call(PartOptimizer(name, part), self.replay, generator)
        return Stage(name, update, 1, "updates", before=lambda: model.train(True))

    def _imagine(self) -> Stage:
        behaviour = self.settings.policy
        model = self.learner.model
        own = self._imagination(self.settings.engine)
        eager = self._imagination(EngineConfig(imagination="eager"))
        compares = self.compare_eager and self.settings.engine.changes(model)
        return Stage(
            "imagine",
            lambda: self._imagine_in(own),
            behaviour.num_rollouts * behaviour.horizon,
            "imagined env steps",
            eager=(lambda: self._imagine_in(eager)) if compares else None,
            before=own.refresh,  # whatever the parts' stages learned
        )

    def _imagination(self, engine: EngineConfig) -> Imagination:
        learner, generator = self.learner, self._generator("imagination")
        return Imagination(learner.model, learner.mappo.policy, self.settings.policy.horizon, generator, engine)

    def _imagine_in(self, imagination: Imagination) -> Any:
        generator = self._generator("imagination")
        rows = self.settings.policy.num_rollouts
        return imagination.rollout(self.replay.sample_contexts(rows, self.learner.model.context_length, generator))

    def _policy(self) -> Stage:
        rollout: list[Any] = []
        generator, mappo = self._generator("policy"), self.learner.mappo
        return Stage(
            "policy",
            lambda: mappo.update(rollout[0], generator),
            1,
            "updates",
            before=lambda: rollout.append(self._imagine_in(self._imagination(EngineConfig(imagination="eager")))),
        )

    def _checkpoint(self) -> Stage:
        """Everything but the collector's and the generators' states, which are small."""
        learner = self.learner
        store = CheckpointStore(self.scratch / "checkpoints", keep=2)
        optimizers = {name: PartOptimizer(name, part).state_dict() for name, part in learner.model.parts().items()}
        components = {"world_model": learner.model, "policy": learner.mappo, "replay": self.replay}

        def save() -> None:
            states = {name: component.state_dict() for name, component in components.items()}
            store.save(0, {**states, "optimizers": optimizers}, {})

        return Stage("checkpoint", save, 1, "checkpoints")

    def _generator(self, name: str) -> torch.Generator:
        return self.learner.randomness.generator(name)


def measure_stage(stage: Stage, repeats: int, device: torch.device, memory: MemoryWatch) -> Measured:
    """Time `stage`, beside its twin where it has one; then run it once to count its work and once to see its memory."""
    if stage.before is not None:
        stage.before()
    calls = {stage.name: stage.call} | ({EAGER: stage.eager} if stage.eager is not None else {})
    times = time_twins(calls, repeats, device)
    own, twin = times[stage.name], times.get(EAGER)
    counts = count_work(stage.call)
    if counts.flops == 0 and stage.eager is not None:  # a compiled call hides its products; its twin does not
        counts = count_work(stage.eager)
    rise_mb = memory.rise_mb(stage.call)
    if twin is None:
        return Measured(stage, median(own), counts, rise_mb, None, None)
    return Measured(stage, median(own), counts, rise_mb, median(twin), speedup(twin, own, device))


def draw_batch(replay: Replay, part: TrainablePart, generator: torch.Generator) -> Any:
    """A training batch for `part`."""
    return replay.sample(part.optim.batch_size, part.segment_length, burn_in=part.burn_in, generator=generator)


def update_call(optimizer: PartOptimizer, replay: Replay, generator: torch.Generator) -> Call:
    """One update of a part: draw a batch, forward, backward, step."""
    return lambda: optimizer.update(draw_batch(replay, optimizer.part, generator), generator)


def _clocks(timing: Timing) -> dict[str, float]:
    return {"ms": round(1e3 * timing.wall_s, 3), "cpu_ms": round(1e3 * timing.cpu_s, 3)}


def _rate(count: int, seconds: float) -> float:
    return round(count / max(seconds, 1e-9), 1)
