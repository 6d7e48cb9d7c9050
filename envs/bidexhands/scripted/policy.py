"""What a script is, and the policy that callers see: a script with, if wanted, noise on its actions."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from envs.bidexhands.readings import Readings


class Script(Protocol):
    """Solves one task by hand-written rules; holds no state, so any row may be at any step."""

    def __call__(self, readings: Readings, elapsed: np.ndarray) -> np.ndarray:
        """The action [R,2,A] in [-1, 1] of R rows that see `readings` after `elapsed` [R] control steps.

        Readings are privileged: forces apart, they are what the state holds, and the angles of the object's joints.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ScriptedPolicy:
    """A script that may be disturbed, so that episodes of a task that always begins alike differ."""

    task: str
    """As in `bidexhands-mujoco/TASK`."""
    script: Script

    def act(
        self,
        readings: Readings,
        elapsed: np.ndarray,
        *,
        noise: float = 0.0,
        generator: np.random.Generator | None = None,
    ) -> np.ndarray:
        """The action [R,2,A] in [-1, 1] of R rows.

        Args:
            readings: of the rows, as `BiDexHandsBatch.readings` gives them.
            elapsed: [R] control steps since their resets.
            noise: standard deviation of normal noise on every entry, before clipping.
            generator: where the noise is drawn from; must be given where there is noise.
        """
        action = self.script(readings, np.asarray(elapsed))
        if noise > 0.0:
            if generator is None:
                raise ValueError(f"noise = {noise} without a generator: expected one to draw it from")
            action = action + noise * generator.standard_normal(action.shape)
        return np.clip(action, -1.0, 1.0)
