"""Pictures of a scene through its camera `view`, without a screen."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.offscreen import choose_gl


class SceneRenderer:
    """Draws one world; holds nothing before the first picture. Sizes in pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._drawn: Any = None
        self._renderer: Any = None

    def draw(self, model: Any, data: Any) -> np.ndarray:
        """The picture uint8 [height, width, 3]; raises `EnvError` where this machine cannot draw."""
        if self._drawn is not data:
            self.close()
            choose_gl()
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            width, height = self._size
            buffer = model.vis.global_
            buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
            self._renderer = MujocoRenderer(model, data, width=width, height=height, camera_name="view")
            self._drawn = data
        return np.array(self._renderer.render("rgb_array"))

    def close(self) -> None:
        """Free the buffers."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._drawn = None
