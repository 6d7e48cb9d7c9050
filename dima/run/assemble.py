"""From settings to finished objects: the environment's spec, the model, the policy, the whole trainer.

The order in which weights are initialised is fixed here, so a seed means the same in every command.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from dima.run.collect_worker import WorkerTask
from dima.run.evaluation import Evaluator
from dima.run.inference_training import InferenceTraining
from dima.run.parameters import describe_parameters, load_weights, num_parameters
from dima.run.round_profile import RoundProfile
from dima.run.run_log import RunLog
from dima.run.runtime import (
    Randomness,
    choose_device,
    default_threads,
    derive_seed,
    derive_seeds,
    keep_freed_memory,
    limit_threads,
)
from dima.run.settings import TrainSettings
from dima.run.steps_source import LocalSource, StepsSource, collecting_agents
from dima.run.trainer import Trainer
from dima.run.worker_source import WorkerSource, shares
from envs.base import EnvConfig
from envs.collector import Collector
from imagination.mappo import Mappo
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class Learner:
    """A model and a policy for one environment, freshly initialised from the run's seed."""

    spec: EnvSpec
    device: torch.device
    randomness: Randomness
    model: WorldModel[Any]
    mappo: Mappo

    def load(self, components: dict[str, Any]) -> None:
        """Take the weights, statistics and optimisers of a checkpoint.

        Raises:
            ValueError: when they were saved by a model of other sizes.
        """
        load_weights(lambda: self.model.load_state_dict(components["world_model"]))
        load_weights(lambda: self.mappo.load_state_dict(components["policy"]))

    def describe_parameters(self) -> str:
        """`num_parameters` in words."""
        return describe_parameters(self._modules())

    def num_parameters(self) -> dict[str, int]:
        """Trainable parameters of each part, of the actor and of the critic."""
        return num_parameters(self._modules())

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {**self.model.parts(), "actor": self.mappo.policy, "critic": self.mappo.critic}


def spec_of(env_config: EnvConfig) -> EnvSpec:
    """What an environment promises, from one that is built for the question and closed again."""
    env = env_config.build()
    try:
        return env.spec
    finally:
        env.close()


def build_learner(settings: TrainSettings) -> Learner:
    """Model and policy on their device; seeds torch's default generators and sets the number of threads."""
    device = choose_device(settings.device)
    limit_threads(settings.num_threads or default_threads())
    keep_freed_memory()
    spec = spec_of(settings.env_config)
    randomness = Randomness(settings.seed, device)
    model = settings.world_model_config.build(spec)
    model.to(device)
    model.train(False)
    return Learner(spec, device, randomness, model, settings.policy.build(spec, model, device))


def evaluation_seeds(settings: TrainSettings) -> list[int]:
    """The episode seeds of every evaluation of a run."""
    return derive_seeds(settings.seed, "evaluate", settings.trainer.eval_episodes)


def build_trainer(
    settings: TrainSettings, learner: Learner, log: RunLog, inference: InferenceTraining | None = None
) -> Trainer:
    """The training loop with its replay, collector and evaluation environments."""
    config = settings.trainer
    profile = RoundProfile(log.folder.path / "profile", learner.device) if settings.profile else None
    for part in learner.model.parts():
        config.num_updates(part, 1)
        config.num_updates(part, 2)
    return Trainer(
        config,
        model=learner.model,
        behaviour=settings.policy,
        mappo=learner.mappo,
        replay=settings.replay.build(learner.spec, config.num_envs, learner.device),
        source=build_source(settings, learner),
        engine=settings.engine,
        evaluator=Evaluator(settings.env_config, evaluation_seeds(settings), config.eval_episodes),
        randomness=learner.randomness,
        log=log,
        profile=profile,
        inference=inference,
    )


def build_source(settings: TrainSettings, learner: Learner) -> StepsSource:
    """What collects, in this process or in others."""
    config, spec, model, policy = settings.trainer, learner.spec, learner.model, learner.mappo.policy
    if config.collect_workers == 0:
        randomness = learner.randomness
        explore, sample = randomness.generator("explore", "cpu"), randomness.generator("collect")
        collector = Collector(settings.env_config, config.num_envs, derive_seed(settings.seed, "collect"))
        agents = collecting_agents(model, policy, spec, explore, sample)
        return LocalSource(collector, agents, config.collect_unit, config.collect_steps)
    tasks = [
        WorkerTask(
            number=number,
            env=settings.env_config,
            world_model=settings.world_model_config,
            policy=settings.policy.policy,
            spec=spec,
            seed=settings.seed,
            first_stream=first_stream,
            num_envs=num_envs,
            unit=config.collect_unit,
            num_steps=num_steps,
        )
        for number, (first_stream, num_envs, num_steps) in enumerate(
            shares(config.num_envs, config.collect_steps, config.collect_workers)
        )
    ]
    return WorkerSource(tasks, lambda: {"world_model": model.state_dict(), "policy": policy.state_dict()})
