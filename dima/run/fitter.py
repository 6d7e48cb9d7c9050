"""Offline fitting as one loop: every part of a model on batches of its own, measured on held-out episodes.

Knows a world model or a state inferencer by its contract and data by its replay, like the training loop.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from dima.run.metrics import RoundMetrics
from dima.run.optimize import LearningRateDecay, PartOptimizer
from dima.run.run_log import RunLog
from dima.run.runtime import Randomness
from dima.run.trainer_config import Updates, updates_of
from worldmodel.config import ConfigError
from worldmodel.protocol import Learnable
from worldmodel.replay import Replay
from worldmodel.types import Segment

_EARLY = (1, 2, 5, 10, 20, 50)
"""Updates after which a row is written besides every `log_every`th: most of a loss curve happens at first."""


Learned = Literal["world_model", "inference"]


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """How much is done."""

    updates: Updates
    """Of each part."""
    decay: LearningRateDecay
    """How the learning rates fall towards the end."""
    log_every: int
    """Updates between rows."""
    held_out_batches: int
    """Batches of each part on held-out episodes."""
    checkpoint_every: int
    """Updates between checkpoints."""


class Fitter:
    """Fits every part of `model` side by side; parts with fewer updates stop earlier."""

    def __init__(
        self,
        plan: FitPlan,
        *,
        model: Learnable,
        replay: Replay,
        held_out: Replay | None,
        randomness: Randomness,
        learned: Learned = "world_model",
    ) -> None:
        """Draw the held-out batches, once. `learned`: the name of what is fitted, in checkpoints and metrics.

        Raises:
            ConfigError: when the plan names a part that the model has not, or leaves one out.
        """
        self.plan = plan
        self.model = model
        self.learned: Learned = learned
        self.replay = replay
        self.randomness = randomness
        self.updates = 0
        """How far every part is that has not stopped."""
        self.budgets = _budgets(plan.updates, list(model.parts()), learned.replace("_", " "))
        self.optimizers = {
            name: PartOptimizer(name, part, plan.decay.over(self.budgets[name])) for name, part in model.parts().items()
        }
        self._held_out = {} if held_out is None else self._draw(held_out)

    @property
    def last_update(self) -> int:
        """The update after which every part has stopped."""
        return max(self.budgets.values(), default=0)

    def run(self, log: RunLog) -> None:
        """Go on until every part has its updates; rows and checkpoints on the way go to `log`."""
        if self.updates == 0:
            log.write_row({**self._counts(), **self._held_out_losses()})
        while self.updates < self.last_update:
            self._run_until(self._next_stop(), log)

    def _run_until(self, stop: int, log: RunLog) -> None:
        metrics = RoundMetrics(self.randomness.device)
        generator = self.randomness.generator("world_model")
        self.model.train(True)
        with metrics.timed(self.learned):
            for update in range(self.updates, stop):
                for name, optimizer in self.optimizers.items():
                    if update < self.budgets[name]:
                        metrics.add(
                            self.learned, optimizer.update(_sample(self.replay, optimizer, generator), generator)
                        )
            for optimizer in self.optimizers.values():
                optimizer.require_finite()
        self.model.train(False)
        self.updates = stop
        figures = metrics.collect()
        names = [f"{self.learned}/{name}_loss" for name in self.optimizers]
        losses = [figures[name] for name in names if name in figures]
        log.write_row({**self._counts(), f"{self.learned}/loss": sum(losses), **figures, **self._held_out_losses()})
        if stop == self.last_update or stop % self.plan.checkpoint_every == 0:
            log.write_checkpoint(self.updates, self.state_dict(), {"updates": self.updates})

    def _next_stop(self) -> int:
        """The update after which the next row or checkpoint is due, or a part has had its last."""
        every, saved = self.plan.log_every, self.plan.checkpoint_every
        rows = [early for early in _EARLY if self.updates < early < every] or [(self.updates // every + 1) * every]
        ends = [budget for budget in self.budgets.values() if budget > self.updates]
        return min([*rows, (self.updates // saved + 1) * saved, *ends])

    def _counts(self) -> dict[str, float]:
        return {"env_steps": self.replay.num_transitions, "updates": self.updates}

    def _draw(self, held_out: Replay) -> dict[str, list[Segment]]:
        generator = self.randomness.fresh("held_out_batches")
        return {
            name: [_sample(held_out, optimizer, generator) for _ in range(self.plan.held_out_batches)]
            for name, optimizer in self.optimizers.items()
        }

    @torch.no_grad()
    def _held_out_losses(self) -> dict[str, float]:
        """The mean of every metric of each part on the held-out batches, with the same noise every time."""
        metrics, losses = RoundMetrics(self.randomness.device), list[Tensor]()
        for name, segments in self._held_out.items():
            generator = self.randomness.fresh(f"held_out_noise/{name}")
            outputs = [self.optimizers[name].part(segment, generator) for segment in segments]
            for output in outputs:
                metrics.add("held_out", {f"{name}_loss": output.loss, **output.metrics})
            losses.append(torch.stack([output.loss for output in outputs]).mean())
        if losses:
            metrics.add("held_out", {"loss": torch.stack(losses).sum()})
        return metrics.collect()

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on, besides its data."""
        return {
            self.learned: self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": self.randomness.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], counters: dict[str, int]) -> None:
        """Put everything back to where `state_dict` found it.

        Raises:
            ConfigError: when a part that had stopped is to go on: it could not catch up with the others.
        """
        for name, budget in self.budgets.items():
            taken = state["optimizers"][name]["updates"]
            if taken < min(budget, counters["updates"]):
                raise ConfigError(f"updates: {name!r} had stopped after {taken}, so it cannot go on to {budget}")
        self.updates = counters["updates"]
        self.model.load_state_dict(state[self.learned])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.randomness.load_state_dict(state["random"])


def _budgets(updates: Updates, parts: list[str], learned: str) -> dict[str, int]:
    unknown = sorted(set(updates) - set(parts)) if isinstance(updates, dict) else []
    if unknown:
        raise ConfigError(f"updates: the {learned} has no part {unknown[0]!r}; its parts are {', '.join(parts)}")
    return {name: updates_of(updates, name) for name in parts}


def _sample(replay: Replay, optimizer: PartOptimizer, generator: torch.Generator) -> Segment:
    part = optimizer.part
    return replay.sample(part.optim.batch_size, part.segment_length, burn_in=part.burn_in, generator=generator)
