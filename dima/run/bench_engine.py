"""Which model `dima bench` imagines in, and which is its twin: all that the measurements know of an engine.

Settings without an engine, and models that know no faster way to imagine, have no twin.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from worldmodel.protocol import WorldModel


def imagining_models(settings: Any, model: Any) -> tuple[WorldModel[Any], WorldModel[Any] | None]:
    """The model that the settings' engine imagines in, with the weights of now; and `model` where that is another."""
    engine = getattr(settings, "engine", None)
    accelerated = getattr(model, "accelerated", None)
    if engine is None or engine.imagination == "eager" or accelerated is None:
        return model, None
    return accelerated(engine.precision), model


def is_bfloat16(settings: Any) -> bool:
    """Whether the engine imagines in bfloat16, whose matrix rate is another."""
    engine = getattr(settings, "engine", None)
    return engine is not None and engine.imagination != "eager" and engine.precision == "bfloat16"


def describe_engine(settings: Any) -> dict[str, Any]:
    """What bench.json says of the engine: its options, where there is one."""
    engine = getattr(settings, "engine", None)
    return {} if engine is None else {"engine": dataclasses.asdict(engine)}
