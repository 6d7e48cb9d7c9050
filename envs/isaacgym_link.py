"""The toolkit's side of the worker that steps Bi-DexHands: what it is asked for, and what it answers.

What goes over the socket: `envs.isaacgym_worker`. Knows no task and nothing of episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs import isaacgym_worker as layout
from envs import worker_wire as wire
from envs.worker_process import Arrays, WorkerProcess, WorkerRefused

__all__ = ["Arrays", "Hello", "IsaacGymWorker", "WorkerRefused"]


class Hello(NamedTuple):
    """What a worker says of itself."""

    sizes: layout.Sizes
    episode_steps: int
    """Control steps of an episode, the one that follows the reset included."""
    versions: tuple[tuple[str, str], ...]


class IsaacGymWorker:
    """A running worker, from its hello on.

    Args:
        command: starts it; the socket's number is added.
        name: for messages, e.g. "isaacgym/over".
        start_timeout_s: until its hello: the simulator builds all its worlds before.
        timeout_s: for one reset or step.
        environment: of the process; None: this process's own.

    Raises:
        ConfigError: when nothing can be started.
        WorkerRefused: when the worker says that something went wrong.
        EnvError: when it died, hung, or does not keep the protocol.
    """

    def __init__(
        self,
        command: Sequence[str],
        name: str,
        *,
        start_timeout_s: float,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._process = WorkerProcess(command, name, timeout_s=timeout_s, environment=environment)
        self.hello = self._process.hello(_read_hello, layout.PROTOCOL, start_timeout_s)
        self._result = layout.result_parts(self.hello.sizes)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def reset(self, seed: int) -> Arrays:
        """Let all worlds begin anew, and give what they show one step later: arrays by name, see `result_parts`."""
        return self._process.arrays(wire.RESET, layout.SEED.pack(seed), self._result, "resetting")

    def step(self, again: np.ndarray, action: np.ndarray) -> Arrays:
        """One control step of all worlds; those marked in `again` [W] begin anew before their `action` [W,N,A]."""
        request = wire.pack(layout.request_parts(self.hello.sizes), {"again": again, "action": action})
        return self._process.arrays(wire.STEP, request, self._result, "stepping")

    def close(self) -> None:
        """End the worker: as it likes for some seconds, then by force."""
        self._process.close()


def _read_hello(told: dict[str, Any]) -> Hello:
    sizes = layout.Sizes(**{name: int(size) for name, size in told["sizes"].items()})
    if min(sizes) < 1 or (steps := int(told["episode_steps"])) < 2:
        raise ValueError(f"sizes {sizes} and {told['episode_steps']} steps, expected numbers above 0")
    versions = tuple(sorted((str(name), str(version)) for name, version in told["versions"].items()))
    return Hello(sizes, steps, versions)
