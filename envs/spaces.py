"""Gymnasium spaces at the border: how large a Box is, and how actions in [-1, 1] are scaled to it.

Knows spaces only through what an adapter hands over; imports gymnasium when first used.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from envs.base import EnvError


class ActionScaling:
    """Turns a joint action [N,A] in [-1, 1] into one array per agent inside its Box.

    Raises:
        EnvError: when an action space is not a Box with finite bounds.
    """

    def __init__(self, env_id: str, spaces: dict[Any, Any]) -> None:
        self.sizes = tuple(box_size(env_id, "action", agent, space) for agent, space in spaces.items())
        self._spaces = spaces
        self._shape = (len(spaces), max(self.sizes))
        self._low, self._high = np.zeros(self._shape), np.zeros(self._shape)
        for row, (agent, space) in enumerate(spaces.items()):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise EnvError(
                    f"environment {env_id}: the actions of agent {agent} are unbounded ({space}); expected a Box with "
                    "finite bounds, to which [-1, 1] is scaled"
                )
            self._low[row, : self.sizes[row]] = space.low.reshape(-1)
            self._high[row, : self.sizes[row]] = space.high.reshape(-1)
        # Centre plus half-range leaves actions untouched where the Box is [-1, 1]: 0 + 1 * a is exact.
        self._centre, self._half_range = (self._low + self._high) / 2, (self._high - self._low) / 2

    def __call__(self, action: np.ndarray) -> dict[Any, np.ndarray]:
        """The agents' controls by name; entries of `action` outside [-1, 1] are clipped first."""
        if action.shape != self._shape:
            raise ValueError(f"action has shape {list(action.shape)}, expected [N, A] = {list(self._shape)}")
        scaled = np.clip(self._centre + self._half_range * np.clip(action, -1.0, 1.0), self._low, self._high)
        return {
            agent: scaled[row, : self.sizes[row]].reshape(space.shape).astype(space.dtype)
            for row, (agent, space) in enumerate(self._spaces.items())
        }


def box_size(env_id: str, kind: Literal["observation", "action"], agent: Any, space: Any) -> int:
    """How many numbers `space`, that of `agent`, holds; raises `EnvError` unless it is a Box of real numbers."""
    from gymnasium.spaces import Box

    allowed = "f" if kind == "action" else "fiub"
    if not isinstance(space, Box) or space.dtype is None or space.dtype.kind not in allowed:
        hint = "discrete actions are not supported yet" if kind == "action" else "flatten it into one vector"
        raise EnvError(
            f"environment {env_id}: {kind} space of agent {agent} is {space}; expected a Box of real numbers; {hint}"
        )
    return int(np.prod(space.shape))
