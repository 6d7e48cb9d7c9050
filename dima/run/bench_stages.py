"""The stages of training as `dima bench` times them: what one call of each does.

A world model's parts are stages under the names that the model gives them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from dima.run.assemble import Learner, build_source
from dima.run.bench_measure import EAGER, Stage, Twin
from dima.run.bench_timing import Call, Prepared
from dima.run.checkpoint import CheckpointStore
from dima.run.engine import EngineConfig, Imagination, imagination_model
from dima.run.messages import nearest
from dima.run.optimize import PartOptimizer
from dima.run.part_training import GATHERED_UPDATES, PartTraining, batches, lanes_of
from dima.run.settings import TrainSettings
from dima.run.steps_source import StepsSource
from envs.collector import Collector
from imagination.agent import PolicyAgent
from worldmodel.config import ConfigError
from worldmodel.protocol import TrainablePart
from worldmodel.replay import Replay
from worldmodel.types import Segment, Trajectory

ALL_PARTS = "parts"
"""On the command line: every part of the world model."""

IN_TURN, IN_LANES = "in_turn", "in_lanes"
"""How `fit` and its twin train the parts."""

IN_PROCESS = "in_process"
"""The twin of collecting in worker processes."""


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
    """Time also the twins that do the same in another way, in turns."""

    def stages(self, asked: Sequence[str]) -> list[Stage]:
        """The stages that `asked` names, in the order in which training goes through them.

        Raises:
            ConfigError: naming one that does not exist.
        """
        parts = dict(self.learner.model.parts())
        makers: dict[str, Callable[[], Stage | None]] = {"collect": self._collect, "replay": self._replay}
        for name, part in parts.items():
            makers[name] = lambda name=name, part=part: self._part(name, part)
        makers |= {"fit": self._fit, "pack": self._pack, "imagine": self._imagine}
        makers |= {"policy": self._policy, "checkpoint": self._checkpoint}
        for name in asked:
            if name != ALL_PARTS and name not in makers:
                known = [*makers, ALL_PARTS]
                raise ConfigError(f"stages: there is no {nearest(name, known)} (stages: {', '.join(known)})")
        wanted = {*asked, *(parts if ALL_PARTS in asked else ())}
        made = [make() for name, make in makers.items() if name in wanted]
        return [stage for stage in made if stage is not None]

    def _collect(self) -> Stage:
        """As training collects: the policy acts, and what comes of it goes into the statistics and the replay."""
        learner, trainer = self.learner, self.settings.trainer
        steps = trainer.num_envs * -(-trainer.collect_steps // trainer.num_envs)
        agent = PolicyAgent(learner.model, learner.mappo.policy, self._generator("collect"), deterministic=False)

        def collect() -> None:
            learner.model.train(False)
            self._absorb(self.collector.collect(agent, num_steps=steps), self.replay)

        if trainer.collect_workers == 0:
            return Stage("collect", collect, steps, "env steps")
        source = self._workers(steps)
        streams = self.settings.replay.build(learner.spec, trainer.num_envs, learner.device)  # theirs, not the twin's
        return Stage(
            "collect",
            lambda: self._absorb(source.collect("policy"), streams),
            steps,
            "env steps",
            twin=Twin(IN_PROCESS, collect, by_wall=True) if self.compare_eager else None,
            after=source.close,
            counted=collect,
        )

    def _workers(self, steps: int) -> StepsSource:
        """Training's own worker processes; exactly `steps` a round, so that every round does the same."""
        trainer = dataclasses.replace(self.settings.trainer, collect_unit="steps", collect_steps=steps)
        return build_source(dataclasses.replace(self.settings, trainer=trainer), self.learner)

    def _absorb(self, trajectories: Iterable[Trajectory], replay: Replay) -> None:
        for trajectory in trajectories:
            self.learner.model.update_statistics(trajectory)
            replay.append(trajectory)

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
        gathered = min(GATHERED_UPDATES, max(1, self._updates(name)))
        update = update_call(PartOptimizer(name, part), self.replay, generator, gathered)
        return Stage(name, update, 1, "updates", before=lambda: model.train(True))

    def _updates(self, part: str) -> int:
        """Of `part` in a round that is not the first."""
        return self.settings.trainer.num_updates(part, 2)

    def _fit(self) -> Stage:
        """A round's updates of every part, one part after the other or, as a twin, in the lanes of `parallel_parts`."""
        model = self.learner.model
        parts = model.parts()
        optimizers = {name: PartOptimizer(name, part) for name, part in parts.items()}
        generators = {name: self._generator(f"world_model/{name}") for name in parts}
        updates = {name: self._updates(name) for name in parts}

        def round_of(*, parallel: bool) -> Call:
            training = PartTraining(optimizers, self.replay, generators, parallel=parallel)
            return lambda: training.run(updates)

        in_turn, in_lanes = round_of(parallel=False), round_of(parallel=True)
        has_lanes = len(lanes_of(parts, parallel=True)) > 1
        is_parallel = has_lanes and self.settings.engine.parallel_parts
        other = Twin(IN_TURN, in_turn, by_wall=True) if is_parallel else Twin(IN_LANES, in_lanes, by_wall=True)
        return Stage(
            "fit",
            in_lanes if is_parallel else in_turn,
            sum(updates.values()),
            "updates",
            twin=other if has_lanes and self.compare_eager else None,
            before=lambda: model.train(True),
            counted=in_turn,
        )

    def _pack(self) -> Stage | None:
        """Making the copies that the engine imagines in; None where it has none, or makes them once for all rounds."""
        model, engine = self.learner.model, self.settings.engine
        if engine.capture == "graph" or not engine.changes(model):
            return None
        return Stage("pack", lambda: imagination_model(model, engine), 1, "rounds")

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
            twin=Twin(EAGER, lambda: self._imagine_in(eager)) if compares else None,
            before=own.refresh,  # whatever the parts' stages learned
        )

    def _imagination(self, engine: EngineConfig) -> Imagination:
        learner, generator = self.learner, self._generator("imagination")
        behaviour = self.settings.policy
        return Imagination(
            learner.model, learner.mappo.policy, behaviour.horizon, generator, engine, behaviour.uncertainty
        )

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


def draw_batch(replay: Replay, part: TrainablePart, generator: torch.Generator) -> Any:
    """A training batch for `part`."""
    return replay.sample(part.optim.batch_size, part.segment_length, burn_in=part.burn_in, generator=generator)


def update_call(optimizer: PartOptimizer, replay: Replay, generator: torch.Generator, gathered: int = 1) -> Prepared:
    """One update of a part: forward, backward, step, on one of `gathered` batches that are drawn at once."""
    batch: list[Segment] = []

    def draw() -> None:
        batch[:] = [next(batches(replay, optimizer.part, gathered, generator))]

    return Prepared(draw, lambda: optimizer.update(batch[0], generator), gathered)
