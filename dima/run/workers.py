"""Independent jobs in processes of their own, their results as they come; with one worker, in this process.

And how any worker process begins, so that it ends with the one that started it.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import torch

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def run_jobs(work: Callable[[JobT], ResultT], jobs: Iterable[JobT], num_workers: int) -> Generator[ResultT]:
    """Yield `work(job)` for each of `jobs`, in the order in which they finish; the first error ends it.

    `work` and the jobs must be picklable when there is more than one worker. The processes end with the generator, and
    with this process, however it ends: nobody is left to write behind the back of whoever clears up. A job that was
    under way then is broken off, so it must leave nothing half-done that matters.
    """
    if num_workers == 1:
        yield from map(work, jobs)
        return
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), initializer=begin_worker, initargs=(os.getpid(),)
    )
    try:
        waiting = [pool.submit(work, job) for job in jobs]
        for finished in concurrent.futures.as_completed(waiting):
            yield finished.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ValueError("a worker process died (killed, or out of memory); go on with fewer: num_workers=1") from error
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        pool.shutdown(cancel_futures=True)


def begin_worker(parent: int) -> None:
    """Make this process a worker of the process `parent`: one thread, deaf to Ctrl-C, and gone when its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everybody at the terminal; the parent decides
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent tells nobody: look for it, so that no worker goes on without one."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
