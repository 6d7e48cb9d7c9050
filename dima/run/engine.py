"""How a run computes, as opposed to what: the options of `engine=...`, and the model that is imagined in.

None of them changes what is learned but for rounding: a resumed run may choose anew.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from worldmodel.config import Config
from worldmodel.protocol import Accelerable, Precision, WorldModel


@dataclasses.dataclass(frozen=True)
class EngineConfig(Config):
    """How the stages of training are computed."""

    imagination: Literal["fast", "eager"] = "fast"
    """`fast`: in what the world model offers for speed (`Accelerable`), if anything; `eager`: in the model itself."""
    precision: Precision = "float32"
    """Of the networks while imagining fast. bfloat16 pays only where the processor multiplies matrices in it."""
    parallel_parts: bool = False
    """Train independent parts of the world model at the same time, each on one CPU thread (on a GPU: a stream)."""

    @property
    def imagines_in_bfloat16(self) -> bool:
        """Whether matrices are multiplied in bfloat16 while imagining."""
        return self.imagination == "fast" and self.precision == "bfloat16"


def imagination_model(model: WorldModel[Any], engine: EngineConfig) -> WorldModel[Any]:
    """The model to imagine in, with the weights that `model` has now; ask anew after they have changed."""
    if engine.imagination == "eager" or not isinstance(model, Accelerable):
        return model
    return model.accelerated(engine.precision)
