"""State and observations as the originals lay them out: right hand, left hand, object; clipped to [-5, 5].

An agent observes its own hand and the object; the state is everything.
"""

from __future__ import annotations

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.hand import JOINTS, LOWER, UPPER
from envs.bidexhands.readings import Readings
from envs.bidexhands.task import VELOCITY_SCALE, Task

FORCE_SCALE = 10.0
"""Of joint forces and of forces and torques at the finger tips: with the clip, both saturate at 0.5."""
CLIP = 5.0


class Observer:
    """Turns readings of a batch into states and observations.

    Args:
        task: gives the object's part.
        contact_channels: False: zeros for joint forces and for forces and torques at the finger tips (108 numbers of
            the state), the part of the observation that resembles the originals' least.
    """

    def __init__(self, task: Task, *, contact_channels: bool = True) -> None:
        self._task = task
        self._force_scale = FORCE_SCALE if contact_channels else 0.0
        self.action_size = 20 if task.drive is None else 26
        """Numbers in one agent's action."""
        self.hand_size = len(JOINTS) * 3 + 65 + 30 + (0 if task.drive is None else 6) + self.action_size
        """Numbers in the part of one hand."""
        self.state_size = 2 * self.hand_size + task.block_size
        """S."""
        self.obs_size = self.hand_size + task.block_size
        """O, of one agent."""

    def state(self, readings: Readings, goal: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The state float32 [B,S].

        Args:
            readings: of B worlds.
            goal: [B,7].
            action: [B,2,A], the one that led here; zeros at the start.
        """
        hands = self._hands(readings, action)
        parts = [hands[:, 0], hands[:, 1], self._task.observe(readings, goal)]
        return np.clip(np.concatenate(parts, axis=-1), -CLIP, CLIP).astype(np.float32)

    def obs(self, state: np.ndarray) -> np.ndarray:
        """Both agents' observations float32 [B,2,O], parts of the `state` [B,S]."""
        right, left, block = np.split(state, [self.hand_size, 2 * self.hand_size], axis=-1)
        return np.stack([np.concatenate([hand, block], axis=-1) for hand in (right, left)], axis=1)

    def _hands(self, readings: Readings, action: np.ndarray) -> np.ndarray:
        """[B,2,hand_size]."""
        batch = len(action)
        parts = [
            (2.0 * readings.joint_position - UPPER - LOWER) / (UPPER - LOWER),
            VELOCITY_SCALE * readings.joint_velocity,
            self._force_scale * readings.joint_force,
            readings.tip_motion.reshape(batch, 2, 65),
            self._force_scale * readings.tip_wrench.reshape(batch, 2, 30),
        ]
        if self._task.drive is not None:
            parts.append(readings.palm_point if self._task.shows_palm else readings.base_position)
            parts.append(rotation.to_euler(readings.base_quaternion))
        return np.concatenate([*parts, action], axis=-1)
