"""Real steps from worker processes that collect while the main process learns, as reproducible as without them.

Round r+1 is requested when round r begins to learn, with the weights and statistics of that moment, and absorbed when
round r+1 begins: its steps are a pure function of the run's seed and settings, however fast anybody is. The state
before the request stays here until the answer is there, so a worker that dies is replaced by one that does the same
again, and a checkpoint with the answer in it goes on to the same bits.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dima.run.collect_worker import WorkerTask, serve
from dima.run.snapshot import pack, unpack
from dima.run.steps_source import Acting
from dima.run.worker_link import WorkerLink
from envs.stream import EpisodeSummary
from worldmodel.types import Trajectory

_WORDS: dict[Acting, str] = {
    "random": "with random actions",
    "policy": "with the policy",
    "deterministic": "with the policy's deterministic actions",
}


def shares(num_envs: int, num_steps: int, num_workers: int) -> list[tuple[int, int, int]]:
    """(first stream, streams, env steps a round) of each worker: streams as equal as can be, steps in proportion.

    Where steps do not divide evenly among the streams (whole episodes are collected then) shares are rounded up.
    """
    each, left = divmod(num_envs, num_workers)
    counts = [each + (worker < left) for worker in range(num_workers)]
    first = [sum(counts[:worker]) for worker in range(num_workers)]
    return [(start, count, -(-num_steps * count // num_envs)) for start, count in zip(first, counts, strict=True)]


class WorkerSource:
    """Keeps the `StepsSource` contract with one process for each of `tasks`."""

    def __init__(self, tasks: Sequence[WorkerTask], weights: Callable[[], dict[str, Any]]) -> None:
        """Start nothing yet; `weights()` gives the present `world_model` and `policy` as state dicts."""
        self.episodes: list[EpisodeSummary] = []
        self._tasks = tasks
        self._weights = weights
        self._links = [WorkerLink(f"collect worker {task.number}", serve, task) for task in tasks]
        self._states: list[dict[str, Any] | None] = [None] * len(tasks)
        """Of each worker before the request under way, or after the latest round; None at the run's beginning."""
        self._requested: list[concurrent.futures.Future[bytes]] = []
        """What the workers are at."""
        self._answers: list[dict[str, Any]] | None = None
        """What they have done that no round has taken."""

    def request(self, acting: Acting) -> None:
        """Let every worker collect its share of the next round, with a copy of the present weights."""
        if self._requested or self._answers is not None:
            return
        weights = b"" if acting == "random" else pack(self._weights())
        for task, link, state in zip(self._tasks, self._links, self._states, strict=True):
            last = task.first_stream + task.num_envs - 1
            doing = f"collecting {task.num_steps} env steps in streams {task.first_stream} to {last} {_WORDS[acting]}"
            self._requested.append(link.send((pack({"acting": acting, "state": state}), weights), doing))

    def collect(self, acting: Acting) -> Iterator[Trajectory]:
        """The steps of the next round, worker after worker; waits for those that are still at work.

        Raises:
            Exception: whatever went wrong in a worker, as it would have here.
            WorkerLost: when one worker after another died.
        """
        self.request(acting)
        answers = self._wait()
        self._answers = None
        self._states = [answer["state"] for answer in answers]
        self.episodes = [EpisodeSummary(**episode) for answer in answers for episode in answer["episodes"]]
        for answer in answers:
            for trajectory in answer["trajectories"]:
                yield Trajectory(**trajectory)

    def state_dict(self) -> dict[str, Any]:
        """Where every worker stands, and the steps that wait for the next round; waits for those under way.

        A request that fails is left out. Its error is raised when the steps are needed, as it would be without workers:
        perhaps never, and whoever resumes tries again.
        """
        try:
            answers = self._wait() if self._requested else self._answers
        except Exception:
            answers = None
        return {"num_workers": len(self._tasks), "states": self._states, "answers": answers}

    def load_state_dict(self, state: Mapping[str, Any], acting: Acting) -> None:
        """Return there; workers learn of it with their next request. Only before the first request.

        Raises:
            ValueError: when `state` was saved with another number of workers.
        """
        saved = state.get("num_workers", 0)
        if saved != len(self._tasks):
            raise ValueError(f"collect_workers = {len(self._tasks)}: the run was saved with {saved}, and keeps them")
        self._states, self._answers = state["states"], state["answers"]

    def close(self) -> None:
        """End every worker."""
        with contextlib.ExitStack() as every:  # a second Ctrl-C in the middle must not spare the rest
            for link in self._links:
                every.callback(link.close)

    def _wait(self) -> list[dict[str, Any]]:
        """The answers, once they are all there."""
        if self._answers is None:
            self._answers = [unpack(requested.result()) for requested in self._requested]
            self._requested = []
        return self._answers
