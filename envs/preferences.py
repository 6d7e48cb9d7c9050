"""Discrete actions as this toolkit's continuous ones: a number in [-1, 1] for each, and the largest is played.

An agent's action is one preference a discrete action. What is not available now is never played, however large its
preference; among equals the first is. Only the order of the numbers matters, not their distance.
"""

from __future__ import annotations

import numpy as np


def chosen(preference: np.ndarray, available: np.ndarray) -> np.ndarray:
    """The available action with the largest preference, the first of equals: int64 [..., N].

    Args:
        preference: [..., N, A]; entries outside [-1, 1] are clipped, and so equal to the bound.
        available: [..., N, A], nonzero where the action can be taken now; where a unit is dead, its no-op alone.

    Raises:
        ValueError: when shapes differ, a preference is no finite number, or an agent has nothing to choose from.
    """
    if np.shape(preference) != np.shape(available):
        raise ValueError(
            f"preferences have shape {list(np.shape(preference))}; expected {list(np.shape(available))}, one an action"
        )
    if not np.isfinite(preference).all():
        raise ValueError("a preference is not a finite number; expected numbers in [-1, 1]")
    can_be_played = np.asarray(available) != 0
    if not can_be_played.any(axis=-1).all():
        raise ValueError("an agent has no available action; expected at least its no-op")
    return np.where(can_be_played, np.clip(preference, -1.0, 1.0), -np.inf).argmax(axis=-1)
