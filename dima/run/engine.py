"""How a run computes, as opposed to what: the options of `engine=...`, and how rollouts are imagined under them.

None of them changes what is learned but for rounding (and, on a GPU, which random numbers are drawn): a resumed run may
choose anew.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch

from imagination.captured import CapturedRollout
from imagination.policy import Policy
from imagination.rollout import imagine
from imagination.uncertainty import UncertaintyConfig
from worldmodel.config import Config, ConfigError
from worldmodel.protocol import Accelerable, Precision, WorldModel
from worldmodel.types import ImaginedRollout, Segment


@dataclasses.dataclass(frozen=True)
class EngineConfig(Config):
    """How the stages of training are computed."""

    imagination: Literal["fast", "eager"] = "fast"
    """`fast`: in what the world model offers for speed (`Accelerable`), if anything; `eager`: in the model itself."""
    precision: Precision = "float32"
    """Of the networks while imagining fast. bfloat16 pays only where the processor multiplies matrices in it."""
    capture: Literal["none", "compile", "graph"] = "none"
    """`compile`: what imagining fast calls most goes through torch.compile; `graph`: a whole rollout of the model
    itself becomes one CUDA graph."""
    parallel_parts: bool = False
    """Train independent parts of the world model at the same time, each on one CPU thread (on a GPU: a stream)."""

    def validate(self) -> None:
        """Refuse what would be ignored."""
        is_fast = self.imagination == "fast"
        self.require(is_fast or self.capture != "compile", "capture", "none or graph with imagination = 'eager'")
        self.require(is_fast or self.precision == "float32", "precision", "float32 with imagination = 'eager'")
        self.require(self.precision == "float32" or self.capture != "graph", "capture", "none or compile with bfloat16")

    def changes(self, model: WorldModel[Any]) -> bool:
        """Whether `model` is imagined in otherwise than by calling it."""
        return self.capture == "graph" or (self.imagination == "fast" and isinstance(model, Accelerable))

    @property
    def imagines_in_bfloat16(self) -> bool:
        """Whether matrices are multiplied in bfloat16 while imagining."""
        return self.imagination == "fast" and self.precision == "bfloat16"


def imagination_model(model: WorldModel[Any], engine: EngineConfig) -> WorldModel[Any]:
    """The model to imagine in, with the weights that `model` has now; ask anew after they have changed.

    Raises:
        ConfigError: when the engine asks for something that this model has not.
    """
    if not isinstance(model, Accelerable) and (engine.precision != "float32" or engine.capture == "compile"):
        raise ConfigError(
            f"engine.precision = {engine.precision}, engine.capture = {engine.capture}: {type(model).__name__} has no"
            " accelerated(); use engine.precision=float32 engine.capture=none"
        )
    if engine.capture == "graph" or engine.imagination == "eager" or not isinstance(model, Accelerable):
        return model
    return model.accelerated(engine.precision, compiled=engine.capture == "compile")


class Imagination:
    """Rollouts of `policy` inside `model` as the engine makes them."""

    def __init__(
        self,
        model: WorldModel[Any],
        policy: Policy,
        horizon: int,
        generator: torch.Generator,
        engine: EngineConfig,
        uncertainty: UncertaintyConfig | None = None,
    ) -> None:
        """Call `refresh` whenever the model has been trained.

        Raises:
            ConfigError: when a CUDA graph is asked for on another device.
        """
        if engine.capture == "graph" and generator.device.type != "cuda":
            raise ConfigError(
                f"engine.capture = graph on {generator.device}: CUDA graphs need device=cuda; use engine.capture=none"
            )
        self._model, self._policy, self._horizon = model, policy, horizon
        self._generator, self._engine, self._uncertainty = generator, engine, uncertainty
        self._current: WorldModel[Any] | None = None
        self._captured: CapturedRollout | None = None

    def refresh(self) -> None:
        """Have the next rollout take the weights and statistics that the model has then."""
        self._current = None

    def rollout(self, context: Segment) -> ImaginedRollout:
        """Imagine from `context`."""
        how = (self._policy, context, self._horizon, self._generator, self._uncertainty)
        if self._engine.capture != "graph":
            self._current = self._current or imagination_model(self._model, self._engine)
            return imagine(self._current, *how)
        if self._captured is None or self._captured.batch_size != context.state.shape[0]:
            self._captured = CapturedRollout(self._model, *how)
        return self._captured(context)
