"""Algorithm 1 of DIMA (arXiv 2505.20922) as one loop: collect, fit the model, imagine, improve, evaluate, save.

The loop is given finished objects and knows only what they promise: any `WorldModel` and any environment will do.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from dima.run.engine import EngineConfig, Imagination
from dima.run.evaluation import Evaluator
from dima.run.inference_training import InferenceTraining
from dima.run.metrics import RoundMetrics
from dima.run.optimize import PartOptimizer
from dima.run.part_training import PartTraining
from dima.run.round_profile import RoundProfile
from dima.run.run_log import RunLog
from dima.run.runtime import Randomness
from dima.run.steps_source import Acting, StepsSource
from dima.run.trainer_config import TrainerConfig
from imagination.agent import PolicyAgent
from imagination.mappo import BehaviourConfig, Mappo
from worldmodel.protocol import WorldModel
from worldmodel.replay import Replay


@dataclasses.dataclass
class Counters:
    """How far a run is."""

    env_steps: int = 0
    rounds: int = 0
    training_rounds: int = 0
    policy_updates: int = 0
    evaluations: int = 0


class Trainer:
    """Runs Algorithm 1 on the objects it is given."""

    def __init__(
        self,
        config: TrainerConfig,
        *,
        model: WorldModel[Any],
        behaviour: BehaviourConfig,
        mappo: Mappo,
        replay: Replay,
        source: StepsSource,
        evaluator: Evaluator,
        randomness: Randomness,
        log: RunLog,
        engine: EngineConfig,
        profile: RoundProfile | None = None,
        inference: InferenceTraining | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.behaviour = behaviour
        self.mappo = mappo
        self.replay = replay
        self.source = source
        self.evaluator = evaluator
        self.randomness = randomness
        self.log = log
        imagines = randomness.generator("imagination")
        self.imagination = Imagination(model, mappo.policy, behaviour.horizon, imagines, engine, behaviour.uncertainty)
        self.profile = profile
        self.inference = inference
        self.counters = Counters()
        self.optimizers = {name: PartOptimizer(name, part) for name, part in model.parts().items()}
        generators = {name: randomness.generator(f"world_model/{name}") for name in self.optimizers}
        self.part_training = PartTraining(self.optimizers, replay, generators, parallel=engine.parallel_parts)

    def run(self, env_steps: int) -> None:
        """Go on until `env_steps` real steps are done; begins with the untrained policy's evaluation.

        Raises:
            FloatingPointError: when a loss, gradient or metric is not finite; names where and when.
            EnvError: when the environment breaks its contract.
            WorkerLost: when worker processes die again and again.
        """
        self.source.request(self._acting())
        if self.counters.evaluations == 0:
            metrics = RoundMetrics(self.randomness.device)
            if self.inference is not None:
                self.inference.measure(metrics)
            self._evaluate(metrics)
            self._write(metrics)
            self._save()
        while self.counters.env_steps < env_steps:
            self._run_round(env_steps)

    def _run_round(self, env_steps: int) -> None:
        counters, config = self.counters, self.config
        metrics = self._begin_metrics(env_steps)
        before = counters.env_steps
        self._collect(metrics)
        counters.rounds += 1
        self.source.request(self._acting())
        if counters.env_steps >= config.start_steps:
            counters.training_rounds += 1
            self._fit_world_model(metrics)
            if counters.training_rounds >= config.policy_start_round:
                self._improve_policy(metrics)
        if self.inference is not None:
            self.inference.after_episodes(len(self.source.episodes), self.replay, metrics)
        is_last = counters.env_steps >= env_steps
        if is_last or _passes(before, counters.env_steps, config.eval_every):
            self._evaluate(metrics)
        self._write(metrics)
        if is_last or _passes(before, counters.env_steps, config.checkpoint_every):
            self._save()
        if self.profile is not None:
            self.profile.end_round()

    def _begin_metrics(self, env_steps: int) -> RoundMetrics:
        """Of a new round, which the profile records if that is its turn."""
        counters, config = self.counters, self.config
        if self.profile is None:
            return RoundMetrics(self.randomness.device)
        after = counters.env_steps + config.collect_steps
        trains = after >= config.start_steps
        learns = trains and counters.training_rounds + 1 >= config.policy_start_round
        self.profile.begin_round(learns=learns, is_last=after >= env_steps)
        return RoundMetrics(self.randomness.device, self.profile.step)

    def _acting(self) -> Acting:
        """Who collects the next round: random actions first, where `random_steps` says so, then the policy."""
        if self.counters.env_steps < self.config.random_steps:
            return "random"
        every = self.config.deterministic_every
        return "deterministic" if every and (self.counters.rounds + 1) % every == 0 else "policy"

    def _collect(self, metrics: RoundMetrics) -> None:
        """Real steps into the statistics and the replay."""
        collected = 0
        with metrics.timed("collect"):
            for trajectory in self.source.collect(self._acting()):
                self.model.update_statistics(trajectory)
                self.mappo.policy.input.update_statistics(trajectory)
                self.replay.append(trajectory)
                collected += trajectory.length
        self.counters.env_steps += collected
        returns = [episode.return_ for episode in self.source.episodes]
        if returns:
            metrics.put("episode/return", statistics.fmean(returns))

    def _fit_world_model(self, metrics: RoundMetrics) -> None:
        """Every part, each on batches of its own."""
        updates = {name: self.config.num_updates(name, self.counters.training_rounds) for name in self.optimizers}
        records = self.profile is not None and self.profile.is_recording
        self.model.train(True)
        with metrics.timed("world_model"):
            learned = self.part_training.run(updates, metrics.traced if records else None)
        self.model.train(False)
        for updates_of_part in learned.values():
            for update in updates_of_part:
                metrics.add("world_model", update)

    def _improve_policy(self, metrics: RoundMetrics) -> None:
        """Imagine from replayed contexts, then update actors and critic."""
        num_rollouts, horizon = self.behaviour.num_rollouts, self.behaviour.horizon
        generator = self.randomness.generator("imagination")
        self.imagination.refresh()
        for _ in range(self.config.policy_updates):
            with metrics.timed("imagination"):
                context = self.replay.sample_contexts(num_rollouts, self.model.context_length, generator)
                rollout = self.imagination.rollout(context)
            with metrics.timed("policy"):
                metrics.add("", self.mappo.update(rollout, self.randomness.generator("policy")))
            self.counters.policy_updates += 1
        imagined = self.config.policy_updates * num_rollouts * horizon
        metrics.put("imagination/steps_per_s", imagined / max(metrics.seconds("imagination"), 1e-9))

    def _evaluate(self, metrics: RoundMetrics) -> None:
        """Deterministic episodes; draws from a stream of its own, so training goes on as if nothing had happened."""
        with metrics.timed("evaluate"):
            generator = self.randomness.fresh("evaluate")
            belief = None if self.inference is None else self.inference.belief
            agent = PolicyAgent(self.model, self.mappo.policy, generator, deterministic=True, belief=belief)
            returns = self.evaluator.play(agent)
        self.counters.evaluations += 1
        self.log.write_evaluation(self.counters.env_steps, returns)
        metrics.put("eval/return_mean", statistics.fmean(returns))
        metrics.put("eval/return_std", statistics.pstdev(returns))

    def _write(self, metrics: RoundMetrics) -> None:
        counters = self.counters
        updates = counters.policy_updates + sum(optimizer.updates for optimizer in self.optimizers.values())
        row = {"env_steps": counters.env_steps, "updates": updates, **metrics.collect()}
        self.log.write_row(row)

    def _save(self) -> None:
        self.log.write_checkpoint(self.counters.env_steps, self.state_dict(), dataclasses.asdict(self.counters))

    def state_dict(self) -> dict[str, Any]:
        """Every component that a run needs to go on, by name."""
        return {
            "world_model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "policy": self.mappo.state_dict(),
            "replay": self.replay.state_dict(),
            "collector": self.source.state_dict(),
            "random": self.randomness.state_dict(),
            **({} if self.inference is None else {"inference": self.inference.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any], counters: dict[str, int]) -> None:
        """Put every component back to where `state_dict` found it."""
        self.counters = Counters(**counters)
        self.model.load_state_dict(state["world_model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.mappo.load_state_dict(state["policy"])
        self.replay.load_state_dict(state["replay"])
        if self.inference is not None:
            self.inference.load_state_dict(state["inference"])
        # Beginning the agent's carry may draw random numbers: the generators are put back last.
        self.source.load_state_dict(state["collector"], self._acting())
        self.randomness.load_state_dict(state["random"])


def _passes(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
