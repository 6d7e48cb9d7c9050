"""What is hidden from the agents of StarCraft-like battles, by the names of an observation's entries.

Names as SMACv2 gives them: `enemy_health_0`, `ally_shield_2`, `enemy_unit_type_0_bit_1`, `own_health`. Hidden entries
stay where they are and are zero, so that the layout does not depend on what is hidden; the state keeps everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

Hide = Literal["none", "types_and_health", "enemy_types_and_health"]
"""`types_and_health`: of all other units; `enemy_types_and_health`: of the enemies alone."""

_HIDDEN: dict[Hide, re.Pattern[str]] = {
    "none": re.compile(r"(?!)"),
    "types_and_health": re.compile(r"(ally|enemy)_(health|shield|unit_type)_"),
    "enemy_types_and_health": re.compile(r"enemy_(health|shield|unit_type)_"),
}
SUFFIX: dict[Hide, str] = {
    "none": "-nothing-hidden",
    "types_and_health": "",
    "enemy_types_and_health": "-enemies-hidden",
}
"""Of a task's name in results, so that no two ways of hiding are taken for one."""


def hidden(names: Sequence[str], hide: Hide) -> np.ndarray:
    """bool [O]: which of an observation's entries `names` agents must not see: types, hit points and shields."""
    return np.array([_HIDDEN[hide].match(name) is not None for name in names], dtype=bool)
