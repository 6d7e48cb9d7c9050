"""How much of what the training loop does in a round: the options of `trainer=...`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from worldmodel.config import Config, ConfigError

Updates = int | dict[str, int]


@dataclasses.dataclass(frozen=True)
class TrainerConfig(Config):
    """How much of what is done in one round of the loop."""

    num_envs: int
    """Environments that step side by side when collecting."""
    collect_unit: Literal["steps", "episodes"]
    """`steps`: collect exactly `collect_steps`, episodes go on in the next round. `episodes`: whole episodes, until
    at least `collect_steps`."""
    collect_steps: int
    """Env steps per round, over all environments."""
    random_steps: int
    """Env steps at the start of a run that are collected with uniformly random actions."""
    deterministic_every: int
    """Every how many rounds the policy collects with its deterministic actions instead of sampling them; 0: never.
    The model then knows the states that the policy meets when it is evaluated."""
    start_steps: int
    """Env steps before the first round that trains anything."""
    updates: Updates
    """Updates of each world-model part per round: one number, or one for each part by name."""
    first_updates: Updates | None
    """The same for the first round that trains; null: like any other."""
    policy_start_round: int
    """The first training round, counted from 1, in which the policy learns."""
    policy_updates: int
    """Policy updates per round, each on imagined rollouts of its own."""
    eval_every: int
    """Env steps between evaluations; the untrained and the final policy are always evaluated."""
    eval_episodes: int
    """Episodes per evaluation, with deterministic actions and the same distinct seeds every time."""
    checkpoint_every: int
    """Env steps between checkpoints; the first and the last state are always saved."""
    keep_checkpoints: int
    """Newest checkpoints that stay on the disk."""
    collect_workers: int = 0
    """Processes that collect while this one learns, each with its share of `num_envs`; 0: this process collects.

    What a round learns from was then collected while the round before it learned, with the weights that it began with,
    and one round more is collected than is learned from. With collect_unit=episodes each worker collects at least its
    share of `collect_steps`. A run keeps its number of workers. (0 by default, so that older runs can be read.)"""

    def validate(self) -> None:
        """Refuse counts that cannot work."""
        at_least_1 = (
            "num_envs",
            "collect_steps",
            "policy_start_round",
            "eval_every",
            "eval_episodes",
            "checkpoint_every",
        )
        for name in at_least_1:
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("random_steps", "deterministic_every", "start_steps", "policy_updates", "collect_workers"):
            self.require(getattr(self, name) >= 0, name, "at least 0")
        has_streams = self.collect_workers <= self.num_envs
        self.require(
            has_streams, "collect_workers", f"at most num_envs = {self.num_envs}: each worker steps environments"
        )
        is_shared_out = self.collect_unit == "episodes" or self.collect_steps % self.num_envs == 0
        self.require(
            is_shared_out, "collect_steps", f"a multiple of num_envs = {self.num_envs} with collect_unit=steps"
        )
        self.require(self.keep_checkpoints >= 2, "keep_checkpoints", "at least 2: the one before the last is the spare")
        for name in ("updates", "first_updates"):
            value = getattr(self, name)
            counts = value.values() if isinstance(value, dict) else [value or 0]
            self.require(all(count >= 0 for count in counts), name, "numbers of at least 0")

    def num_episodes(self, env_steps: int, episode_steps: int) -> int:
        """How many episodes end in a run of `env_steps` if every one of them takes all of its `episode_steps`.

        However many workers: each of the `num_envs` streams plays its equal share.
        """
        if self.collect_unit == "steps":
            collected = _divide_up(env_steps, self.collect_steps) * self.collect_steps
            return self.num_envs * (collected // self.num_envs // episode_steps)
        per_round = self.num_envs * _divide_up(self.collect_steps, self.num_envs * episode_steps)
        return per_round * _divide_up(env_steps, per_round * episode_steps)

    def num_updates(self, part: str, training_round: int) -> int:
        """Updates of `part` in a training round, counted from 1.

        Raises:
            ConfigError: when the updates are listed by part and `part` is not among them.
        """
        is_first = training_round == 1 and self.first_updates is not None
        return updates_of((self.first_updates if is_first else self.updates) or 0, part)


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)


def updates_of(updates: Updates, part: str) -> int:
    """The number of updates for `part`.

    Raises:
        ConfigError: when the updates are listed by part and `part` is not among them.
    """
    if not isinstance(updates, dict):
        return updates
    if part not in updates:
        raise ConfigError(f"updates = {updates}: expected a number for the world model's part {part!r}")
    return updates[part]
