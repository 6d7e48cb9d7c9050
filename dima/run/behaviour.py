"""Who acts in each episode of a dataset: random actions, correlated noise, an environment's own script, or the policies
of a run at several ages.

An episode is a pure function of the dataset's seed and its number, so any worker may play it, in any order.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dima.run.checkpoint import CheckpointError, verify
from dima.run.folder import RunFolder
from dima.run.runtime import derive_seed
from dima.run.saved_run import SavedRun, open_run
from envs.base import EnvConfig, EnvError, ScriptedEnv
from envs.collector import Collector
from envs.ou_agent import OrnsteinUhlenbeckAgent
from envs.random_agent import RandomAgent
from envs.scripted_agent import ScriptedAgent
from envs.stream import episode_seed
from imagination.agent import PolicyAgent
from worldmodel.config import Config, ConfigError
from worldmodel.dataset import differing_field
from worldmodel.protocol import Agent
from worldmodel.types import EnvSpec, Trajectory


@dataclasses.dataclass(frozen=True)
class NoiseConfig(Config):
    """The noise of `policy=ou` and `policy=scripted`; each episode draws its own values in these ranges."""

    std: tuple[float, ...]
    """[low, high] of the correlated noise's standard deviation before clipping to [-1, 1]; log-uniform."""
    time_steps: tuple[float, ...]
    """[low, high] of the env steps after which the correlation has fallen to 1/e; log-uniform."""
    scripted: tuple[float, ...] = (0.0, 0.0)
    """[low, high] of the standard deviation of white noise on a script's actions; uniform (by default none, so that
    older datasets can be read)."""

    def validate(self) -> None:
        """Refuse empty ranges."""
        for name in ("std", "time_steps"):
            value = getattr(self, name)
            self.require(len(value) == 2 and 0 < value[0] <= value[1], name, "[low, high] with 0 < low <= high")
        script = self.scripted
        self.require(len(script) == 2 and 0 <= script[0] <= script[1], "scripted", "[low, high] with 0 <= low <= high")


@dataclasses.dataclass(frozen=True)
class MixtureConfig(Config):
    """Shares of the episodes of `policy=mixture`; without a run, the others share them all."""

    random: float
    """Uniformly random actions."""
    ou: float
    """Correlated noise."""
    checkpoints: float
    """The run's policies, sampled, spread evenly over its checkpoints."""
    scripted: float = 0.0
    """The environment's own script (by default none, so that older datasets can be read)."""

    def validate(self) -> None:
        """Refuse negative shares and a mixture of nothing."""
        for name in ("random", "ou", "checkpoints", "scripted"):
            self.require(getattr(self, name) >= 0, name, "at least 0")
        self.require(self.random + self.ou > 0, "random", "above 0, or ou above 0")


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """Who acts in one episode."""

    kind: str
    """`random`, `ou`, `scripted` or `policy`."""
    run: str | None = None
    checkpoint: int | None = None

    @property
    def name(self) -> str:
        """As dataset.json spells it."""
        return self.kind if self.checkpoint is None else f"policy@{self.checkpoint:08d}"


def plan(policy: str, run: str | None, mixture: MixtureConfig, episodes: int) -> list[Behaviour]:
    """The behaviour of each episode, mixed evenly along the dataset.

    Raises:
        ConfigError: for an unknown policy.
        RunFolderError: when a run is not there.
    """
    if policy in ("random", "ou", "scripted"):
        return [Behaviour(policy)] * episodes
    if policy.startswith("run:"):
        path = policy.removeprefix("run:")
        return [Behaviour("policy", _absolute(path), _checkpoints(path)[-1])] * episodes
    if policy != "mixture":
        raise ConfigError(f"policy = {policy!r}: expected random, ou, scripted, run:DIR or mixture")
    shares = {Behaviour("random"): mixture.random, Behaviour("ou"): mixture.ou}
    if mixture.scripted > 0:
        shares[Behaviour("scripted")] = mixture.scripted
    if run is not None:
        steps = _checkpoints(run)
        shares |= {Behaviour("policy", _absolute(run), step): mixture.checkpoints / len(steps) for step in steps}
    return _spread(shares, episodes)


def require_policies(behaviours: Iterable[Behaviour], env_config: EnvConfig, spec: EnvSpec) -> None:
    """Open every checkpoint that is to act, and look for the script, before anything is played or written.

    Raises:
        EnvError: when a script is to act in an environment that has none.
        ConfigError: when a run holds no policy, or one of another task.
        CheckpointError: when a checkpoint is damaged.
    """
    for behaviour in dict.fromkeys(behaviours):
        if behaviour.kind == "policy":
            _open_policy(behaviour, spec)
        elif behaviour.kind == "scripted":
            build_scripted(env_config).close()


def build_scripted(env_config: EnvConfig) -> ScriptedEnv:
    """An environment with a script; raises `EnvError` where it has none."""
    env = env_config.build()
    if isinstance(env, ScriptedEnv):
        return env
    env.close()
    raise EnvError(f"environment {env.spec.env_id} has no scripted policy; choose another, e.g. policy=random")


def play_episode(env_config: EnvConfig, behaviour: Behaviour, noise: NoiseConfig, seed: int, number: int) -> Trajectory:
    """Play episode `number` of the dataset with `seed`, from reset to its end.

    Raises:
        EnvError: when the environment breaks its contract.
        ConfigError: when the policy was trained on another task.
    """
    acting_seed = derive_seed(seed, f"behaviour/{number}")
    # A script looks into the very environment that it acts in.
    env = build_scripted(env_config) if behaviour.kind == "scripted" else None
    collector = Collector(env_config if env is None else lambda: env, 1, _collector_seed(seed, number))
    try:
        agent: Agent[Any] = (
            _agent(behaviour, collector.spec, noise, acting_seed)
            if env is None
            else _scripted_agent(env, noise, acting_seed)
        )
        (trajectory,) = collector.collect(agent, num_episodes=1)
    finally:
        collector.close()
    return trajectory


def dataset_episode_seed(seed: int, number: int) -> int:
    """What the environment is reset with for episode `number` of the dataset with `seed`."""
    return episode_seed(_collector_seed(seed, number), stream=0, episode=0)


def _collector_seed(seed: int, number: int) -> int:
    return derive_seed(seed, f"episode/{number}")


def _spread(shares: dict[Behaviour, float], episodes: int) -> list[Behaviour]:
    """Each behaviour in proportion to its share: episode by episode, the one that is most behind is next."""
    total, taken = sum(shares.values()), dict.fromkeys(shares, 0)
    chosen: list[Behaviour] = []
    for number in range(1, episodes + 1):
        behind = {behaviour: number * share / total - taken[behaviour] for behaviour, share in shares.items()}
        following = max(behind, key=lambda behaviour: behind[behaviour])
        taken[following] += 1
        chosen.append(following)
    return chosen


def _absolute(run: str) -> str:
    """So that a dataset can be finished from another folder."""
    return str(Path(run).resolve())


def _checkpoints(run: str) -> list[int]:
    steps = RunFolder.open(Path(run)).checkpoints().steps()
    if not steps:
        raise ConfigError(f"run {run!r} holds no checkpoint")
    return steps


def _agent(behaviour: Behaviour, spec: EnvSpec, noise: NoiseConfig, seed: int) -> Agent[Any]:
    generator = torch.Generator().manual_seed(seed)
    if behaviour.kind == "random":
        return RandomAgent(spec, generator)
    if behaviour.kind == "ou":
        draw = np.random.default_rng(seed)
        std, time_steps = (_log_uniform(draw, *bounds) for bounds in (noise.std, noise.time_steps))
        return OrnsteinUhlenbeckAgent(spec, std=std, time_steps=time_steps, generator=generator)
    learner = _open_policy(behaviour, spec).learner
    return PolicyAgent(learner.model, learner.mappo.policy, generator, deterministic=False)


def _scripted_agent(env: ScriptedEnv, noise: NoiseConfig, seed: int) -> ScriptedAgent:
    rng = np.random.default_rng(seed)
    low, high = noise.scripted
    return ScriptedAgent(env, noise=rng.uniform(low, high), rng=rng)


def _open_policy(behaviour: Behaviour, spec: EnvSpec) -> SavedRun:
    assert behaviour.run is not None
    assert behaviour.checkpoint is not None
    saved = _opened(behaviour.run, behaviour.checkpoint)
    name = differing_field(saved.learner.spec, spec)
    if name is not None:
        there, here = getattr(saved.learner.spec, name), getattr(spec, name)
        raise ConfigError(
            f"the policy of {behaviour.run} was trained on another task: {name} is {there!r} there, {here!r} here"
        )
    return saved


@functools.lru_cache(maxsize=16)  # the episodes of a mixture take turns
def _opened(run: str, checkpoint: int) -> SavedRun:
    try:
        verify(RunFolder.open(Path(run)).checkpoints().path(checkpoint))
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it from the run, or let another run act") from error
    return open_run(run, checkpoint, "cpu", 1, "collect")


def _log_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))
