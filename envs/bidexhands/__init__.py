"""Bi-DexHands on stock MuJoCo: two Shadow Hands that catch, open, pull and cut together. Usable without the toolkit.

`parallel_env(task)` is a PettingZoo environment, `BiDexHandsBatch` steps many at once. What equals the originals and
what does not: docs/bidexhands_port.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envs.bidexhands.batch import BiDexHandsBatch
from envs.bidexhands.tasks import TASKS

if TYPE_CHECKING:
    from envs.bidexhands.pettingzoo_env import BiDexHandsParallelEnv

__all__ = ["TASKS", "BiDexHandsBatch", "parallel_env"]


def parallel_env(task: str, **options: Any) -> BiDexHandsParallelEnv:
    """The PettingZoo environment of a task, e.g. "door-open-outward"; options as `BiDexHandsParallelEnv`."""
    from envs.bidexhands.pettingzoo_env import BiDexHandsParallelEnv

    return BiDexHandsParallelEnv(task, **options)
