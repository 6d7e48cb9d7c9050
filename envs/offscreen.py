"""Drawing MuJoCo scenes without a screen: which of the two ways this machine offers."""

from __future__ import annotations

import os
import subprocess
import sys

from envs.errors import EnvError


def choose_gl() -> None:
    """Set MUJOCO_GL to the first of `egl` and `osmesa` that works, unless it is set or there is a screen.

    Raises:
        EnvError: when neither works; says what to install.
    """
    has_screen = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if "MUJOCO_GL" not in os.environ and not has_screen:
        os.environ["MUJOCO_GL"] = _working_gl()


def _working_gl() -> str:
    reasons = []
    for name in ("egl", "osmesa"):
        # Each in a process of its own: what fails to load first would bind PyOpenGL, and shut out the other here.
        probe = f"import mujoco.{name} as gl; gl.GLContext(8, 8).free()"
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return name
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reasons.append(f"{name}: {lines[-1]}")
    raise EnvError(
        f"cannot draw without a screen ({'; '.join(reasons)}); install EGL (Debian: libegl1 libgl1-mesa-dri) or OSMesa "
        "(libosmesa6), or set MUJOCO_GL"
    )
