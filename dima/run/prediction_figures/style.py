"""What the figures of predictions share: one fixed look an order, a baseline and the floor, and the line above.

Size, type and the legend are those of all figures, handed on here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from dima.run.figure_style import (
    LOOKS,
    MAX_HEIGHT,
    NOTE_COLOR,
    RC,
    SMALL,
    WIDTH,
    Look,
    head,
    model_looks,
    nth_look,
    save,
)

__all__ = [
    "BASELINES_OF",
    "BASELINE_LOOKS",
    "FIELD_NAMES",
    "FLOOR_LOOK",
    "MAX_HEIGHT",
    "NOTE_COLOR",
    "RC",
    "SMALL",
    "WIDTH",
    "Look",
    "describe",
    "head",
    "model_looks",
    "order_looks",
    "save",
]

_LETTERS_A_LINE = 100
"""Letters of the line above a figure that fit into its width."""

_FIXED = {"descending": 0, "ascending": 1, "cycle": 2, "random": 3, "any": 0}
"""Which look an order has in every figure."""

BASELINE_LOOKS = {
    "persistence": Look("0.58", linestyle=(0, (5, 2))),
    "no_action": Look("0.25", linestyle=(0, (2.5, 1.5))),
    "linear": Look("0.45", linestyle=(0, (6, 1.5, 1, 1.5))),
}

FLOOR_LOOK = Look("black", linestyle=":")

FIELD_NAMES = {"state": "state", "obs": "observation", "reward": "reward"}

BASELINES_OF = {"state": "baselines", "obs": "baselines_obs", "reward": "baselines_reward"}
"""Under which key of prediction.json the baselines of a field are."""


def order_looks(orders: Sequence[str]) -> dict[str, Look]:
    """A look for each order: the named orders always have the same, lists of agents take what is left."""
    free = [look for index, look in enumerate(LOOKS) if index not in _FIXED.values()]
    others = [order for order in orders if order not in _FIXED]
    return {order: LOOKS[_FIXED[order]] if order in _FIXED else nth_look(free, others.index(order)) for order in orders}


def describe(prediction: dict[str, Any]) -> str:
    """Task, model and its options, for the line above a figure."""
    said = {key: value for key, value in prediction["options"].items() if key != "order" and value is not None}
    options = [f"{key.replace('_', ' ')} {value}" for key, value in said.items()]
    text = f"{prediction['env']}, {prediction['model']}" + (f" ({', '.join(options)})" if options else "")
    return textwrap.fill(text, _LETTERS_A_LINE)
