"""Weights & Biases in a process of its own, so that nothing it waits for can hold up a run or its end.

The process is fed through a queue and killed if it cannot finish in time; what it could not send stays in the run
folder for `wandb sync`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import multiprocessing
import queue
import signal
from collections.abc import Mapping
from typing import Any, Literal

_POLL_S = 0.5


@dataclasses.dataclass(frozen=True)
class WandbOptions:
    """What `wandb.init` is told; picklable."""

    mode: Literal["offline", "online"]
    project: str
    entity: str | None
    name: str
    directory: str
    timeout_s: float
    run_config: dict[str, Any]


class WandbMirror:
    """A run at Weights & Biases, or its offline copy under a directory."""

    def __init__(self, options: WandbOptions) -> None:
        """Start the process; what goes wrong in it is raised by a later `write`, or by `close`.

        Raises:
            ModuleNotFoundError: when wandb is not installed.
        """
        if importlib.util.find_spec("wandb") is None:
            raise ModuleNotFoundError("No module named 'wandb'", name="wandb")
        self._timeout_s = options.timeout_s
        context = multiprocessing.get_context("spawn")
        self._rows: Any = context.Queue()
        self._errors: Any = context.Queue()
        self._process = context.Process(target=_relay, args=(options, self._rows, self._errors), daemon=True)
        self._process.start()

    def write(self, row: Mapping[str, float]) -> None:
        """Queue one row.

        Raises:
            RuntimeError: when the process has given up; says why.
        """
        self._raise_error()
        self._rows.put(dict(row))

    def close(self) -> None:
        """Let the process send what is queued, but not wait for a server that is gone.

        Raises:
            RuntimeError: when it gave up, or is not through after the configured wait.
        """
        self._rows.put(None)
        # Twice: the first wait is for the server to answer at all, which may not yet be over in a short run.
        self._process.join(2 * self._timeout_s)
        is_late = self._process.is_alive()
        if is_late:
            self._process.kill()
        self._rows.cancel_join_thread()
        self._raise_error()
        if is_late:
            raise RuntimeError("not everything was sent in time; `wandb sync` can send it later")

    def _raise_error(self) -> None:
        try:
            raise RuntimeError(self._errors.get_nowait())
        except queue.Empty:
            return


def _relay(options: WandbOptions, rows: Any, errors: Any) -> None:
    """The process: from the queue to wandb, until None comes or the training process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process, which then closes this one
    try:
        import wandb

        run = wandb.init(
            mode=options.mode,
            project=options.project,
            entity=options.entity,
            name=options.name,
            dir=options.directory,
            config=options.run_config,
            settings=wandb.Settings(init_timeout=options.timeout_s, silent=True, console="off"),
        )
        # Rows carry their own axis: after a resume, env steps may lie before the last ones that were sent.
        run.define_metric("*", step_metric="env_steps")
        while True:
            row = _next(rows)
            if row is None:
                break
            run.log(row)
        run.finish()
    except Exception as error:  # whatever wandb raises is reported by the training process
        errors.put(str(error) or type(error).__name__)


def _next(rows: Any) -> dict[str, float] | None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        try:
            return rows.get(timeout=_POLL_S)
        except queue.Empty:
            continue
    return None
