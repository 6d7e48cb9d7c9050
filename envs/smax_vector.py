"""The battles of a worker as environments: all worlds in one process, what agents must not see taken out.

What goes over the socket: `envs.smax_worker`. Knows no map and nothing of how the worker is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs import smax_worker as layout
from envs import worker_wire as wire
from envs.base import EnvError, Observed, StepResult
from envs.hiding import Hide, hidden
from envs.observation import LocalObservation
from envs.preferences import chosen
from envs.vector import Row
from envs.worker_process import Arrays, WorkerProcess
from worldmodel.types import EnvSpec


class Hello(NamedTuple):
    """What a worker says of itself."""

    sizes: layout.Sizes
    obs_names: tuple[str, ...]
    """Of the entries of the first agent's observation; the others' are laid out alike."""
    versions: tuple[tuple[str, str], ...]


class SmaxWorker:
    """A running worker, from its hello on; arguments and errors as `WorkerProcess`.

    Args:
        command: starts it; the socket's number is added.
        name: for messages, e.g. "smax/3m".
        start_timeout_s: until its hello: JAX compiles everything before.
        timeout_s: for one reset or step.
        environment: of the process; None: this process's own.
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

    def reset(self, rows: np.ndarray, seed: np.ndarray) -> Arrays:
        """Begin anew in the worlds marked in `rows` [W], with `seed` [W]: arrays by name, see `result_parts`."""
        request = wire.pack(layout.reset_parts(self.hello.sizes), {"rows": rows, "seed": seed})
        return self._process.arrays(wire.RESET, request, self._result, "resetting")

    def step(self, rows: np.ndarray, action: np.ndarray) -> Arrays:
        """One step of the worlds marked in `rows` [W] with discrete `action` [W,N]."""
        request = wire.pack(layout.step_parts(self.hello.sizes), {"rows": rows, "action": action})
        return self._process.arrays(wire.STEP, request, self._result, "stepping")

    def close(self) -> None:
        """End the worker: as it likes for some seconds, then by force."""
        self._process.close()


def _read_hello(told: dict[str, Any]) -> Hello:
    sizes = layout.Sizes(**{name: int(size) for name, size in told["sizes"].items()})
    names = tuple(str(name) for name in told["obs_names"])
    if min(sizes) < 1 or len(names) != sizes.obs:
        raise ValueError(f"sizes {sizes} and {len(names)} names, expected numbers above 0 and a name an entry")
    return Hello(sizes, names, tuple(sorted((str(name), str(version)) for name, version in told["versions"].items())))


class SmaxVec:
    """A `VecEnv` on the worlds of one worker; rows may be stepped, or wait, as they like.

    Raises:
        EnvError: when the worker fails, for a step out of turn, and for preferences that are no finite numbers.
    """

    def __init__(self, worker: SmaxWorker, env_id: str, hide: Hide, episode_steps: int) -> None:
        sizes = worker.hello.sizes
        self._worker = worker
        self._age: list[int | None] = [None] * sizes.worlds  # steps of a row's episode; None between episodes
        self._hidden = hidden(worker.hello.obs_names, hide)
        self._builder = LocalObservation((sizes.obs,) * sizes.agents)
        self._available = np.zeros((sizes.worlds, sizes.agents, sizes.actions), np.uint8)
        self._spec = EnvSpec(
            env_id=env_id,
            num_agents=sizes.agents,
            state_dim=sizes.state,
            obs_sizes=self._builder.sizes,
            action_sizes=(sizes.actions,) * sizes.agents,
            episode_steps=episode_steps,
            appends_agent_id=self._builder.appends_agent_id,
            versions=worker.hello.versions,
        )

    @property
    def spec(self) -> EnvSpec:
        """Of each."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """B."""
        return len(self._age)

    @property
    def worker(self) -> SmaxWorker:
        """The process with the worlds."""
        return self._worker

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Observed]:
        """Begin episodes; everything in one follows from its seed and its actions."""
        seed = np.zeros(self.num_envs, np.int64)
        seed[list(rows)] = seeds
        shown = self._worker.reset(self._marked(rows), seed)
        self._available = shown["available"]
        for row in rows:
            self._age[row] = 0
        return [self._observed(shown, row) for row in rows]

    def step(self, rows: Sequence[int], action: np.ndarray) -> list[StepResult]:
        """One step of each of `rows` with preferences `action` [R,N,A], see `envs.preferences`."""
        if ended := [row for row in rows if self._age[row] is None]:
            raise EnvError(f"environment {self._spec.env_id}: step() of {ended} before reset(), or after the end")
        discrete = np.zeros((self.num_envs, self._spec.num_agents), np.int32)
        try:
            discrete[list(rows)] = chosen(action, self._available[list(rows)])
        except ValueError as error:
            raise EnvError(f"environment {self._spec.env_id}: {error}") from error
        shown = self._worker.step(self._marked(rows), discrete)
        self._available = shown["available"]
        return [self._result(shown, row) for row in rows]

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _marked(self, rows: Sequence[int]) -> np.ndarray:
        if len(set(rows)) != len(rows):
            raise EnvError(f"environment {self._spec.env_id}: rows {list(rows)}; expected each at most once")
        marked = np.zeros(self.num_envs, np.uint8)
        marked[list(rows)] = 1
        return marked

    def _observed(self, shown: Arrays, row: int) -> Observed:
        obs, state = np.where(self._hidden, np.float32(0.0), shown["obs"][row]), shown["state"][row].copy()
        return Observed(self._builder(list(obs), state), state)

    def _result(self, shown: Arrays, row: int) -> StepResult:
        age = self._age[row]
        assert age is not None
        is_over, is_late = bool(shown["over"][row]), age + 1 >= self._spec.episode_steps
        self._age[row] = None if is_over or is_late else age + 1
        info = {"won": float(shown["won"][row])}
        # An end at the last step is the battle's, not the time's.
        observed = self._observed(shown, row)
        return StepResult(*observed, float(shown["reward"][row]), is_over, is_late and not is_over, info)


class SmaxEnv(Row):
    """The only row of a vector, as an environment of its own."""

    def __init__(self, vector: SmaxVec) -> None:
        super().__init__(vector, 0)

    def render(self) -> np.ndarray:
        """Refused: the worker makes no pictures."""
        raise EnvError(f"environment {self.spec.env_id}: the worker makes no pictures")

    def close(self) -> None:
        """End the worker."""
        self._vector.close()
