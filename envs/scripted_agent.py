"""An agent that asks its environment what to do: plays the script of a `ScriptedEnv`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from envs.base import ScriptedEnv


class ScriptedAgent:
    """Acts in the one environment that it is made with, and sees more than agents do. Keeps the `Agent` protocol.

    Args:
        env: in which its actions are taken.
        noise: standard deviation of normal noise on every action, before clipping.
        rng: where the noise is drawn from.
    """

    def __init__(self, env: ScriptedEnv, *, noise: float, rng: np.random.Generator) -> None:
        self._env = env
        self._noise = noise
        self._rng = rng

    def begin(self, obs: Tensor, state: Tensor) -> None:
        """Nothing to remember."""

    def act(self, carry: None, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, None]:
        """Actions [1,N,A] for where the environment is, which `obs` [1,N,O] was seen in."""
        if len(obs) != 1:
            raise ValueError(f"obs of {len(obs)} environments: expected 1, the one that the script is of")
        action = self._env.scripted_action(self._noise, self._rng)
        return torch.from_numpy(np.asarray(action, dtype=np.float32))[None], None
