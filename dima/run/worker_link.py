"""One worker process, as the process that asks sees it: requests go out, answers come back, a dead worker is replaced.

A thread waits for the answer, so that a death is noticed, named and mended while the main thread computes. It moves
bytes and draws no random numbers: what is computed does not depend on when it runs.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from dima.run.collect_worker import ERROR
from dima.run.console import warn

MAX_DEATHS = 3
"""Workers that may die over one request before it is given up: it is the request then, not chance."""

_CONTEXT = multiprocessing.get_context("spawn")
_PATIENCE_S = 5.0
"""Seconds that a worker whose pipe is closed may take to end."""


class WorkerLost(ValueError):
    """Worker after worker died over the same request; says how."""


@dataclasses.dataclass
class _Worker:
    """A process that lives or has just died, our end of its pipe, and what it was last seen doing, in words."""

    process: BaseProcess
    connection: Connection
    doing: str = "starting"
    is_ready: bool = False

    def receive(self) -> bytes:
        """The next frame; `EOFError` or `OSError` when the worker died before it came."""
        # A child of the worker may hold the other end of the pipe open, so a closed pipe is not the only sign of death.
        while not self.connection.poll(1.0):
            if self.process.exitcode is not None:
                raise EOFError
        return self.connection.recv_bytes()

    def end(self) -> str:
        """See the process off and say how it ended."""
        self.connection.close()
        self.process.join(_PATIENCE_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class WorkerLink:
    """Runs `serve(connection, task, parent_pid)` in a process and exchanges frames of bytes with it."""

    def __init__(self, name: str, serve: Callable[[Connection, Any, int], None], task: Any) -> None:
        """Nothing is started before the first request. `serve` and `task` must be picklable."""
        self._name = name
        self._serve = serve
        self._task = task
        # Ctrl-C is the main thread's alone. Blocked in this thread, it cannot reach a worker that is only starting.
        self._thread = concurrent.futures.ThreadPoolExecutor(
            1, name, signal.pthread_sigmask, (signal.SIG_BLOCK, {signal.SIGINT})
        )
        self._worker: _Worker | None = None
        self._exchange: concurrent.futures.Future[bytes] | None = None
        self._is_closing = False

    def send(self, request: Sequence[bytes], doing: str) -> concurrent.futures.Future[bytes]:
        """Hand a request to the worker, and to its successors if it dies; `doing` says what it is, in words.

        The future raises what went wrong in the worker as it was, or `WorkerLost`.
        """
        self._exchange = self._thread.submit(self._insist, request, doing)
        return self._exchange

    def close(self) -> None:
        """End the worker: at once if it is at work, else as soon as its environments are closed."""
        self._is_closing = True
        worker = self._worker
        if worker is not None and self._exchange is not None and not self._exchange.done():
            with contextlib.suppress(ValueError):  # it died just now and has been cleared away
                worker.process.kill()
        self._thread.shutdown(cancel_futures=True)
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _insist(self, request: Sequence[bytes], doing: str) -> bytes:
        """The answer to `request`, from whichever worker lives to give it."""
        how = ""
        for death in range(1, MAX_DEATHS + 1):
            worker = self._worker = self._worker or self._start()
            if self._is_closing:  # `close` may have looked for a worker just before there was one
                worker.process.kill()
            try:
                reply = _exchange(worker, request, doing)
            except (EOFError, OSError):
                pid, self._worker = worker.process.pid, None
                how = f"{self._name} (pid {pid}) {worker.end()} while {worker.doing}"
                if self._is_closing:
                    break
                if death < MAX_DEATHS:
                    warn(f"{how}; a new one begins where it began, no step is lost")
            else:
                if isinstance(reply, Exception):
                    raise reply
                return reply
        raise WorkerLost(f"{how}; it was the last of {MAX_DEATHS} that died over the same steps, this is no accident")

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=self._serve, args=(theirs, self._task, os.getpid()), name=self._name)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _exchange(worker: _Worker, request: Sequence[bytes], doing: str) -> bytes | Exception:
    """Send `request` and wait for the answer, or for what went wrong.

    Raises:
        EOFError, OSError: when the worker died.
    """
    if not worker.is_ready:
        if worker.receive() == ERROR:
            return worker.connection.recv()
        worker.is_ready, worker.doing = True, "waiting for work"
    for frame in request:
        worker.connection.send_bytes(frame)
    worker.doing = doing
    reply = worker.connection.recv() if worker.receive() == ERROR else worker.receive()
    worker.doing = "waiting for work"
    return reply
