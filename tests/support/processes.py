"""Looks for processes from outside, as the system sees them; Linux only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

HAS_PROC = Path("/proc/self/stat").exists()


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    fields = _stat(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def spawned_by(parent: int) -> list[int]:
    """Living children of `parent` that `multiprocessing` spawned to do work, oldest first."""
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if is_alive(pid) and _is_spawned_by(parent, pid)]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Return as soon as `condition()` holds; fail, saying `what` did not come about, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def _is_spawned_by(parent: int, pid: int) -> bool:
    fields = _stat(pid)
    if fields is None or int(fields[1]) != parent:
        return False
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _stat(pid: int) -> list[str] | None:
    """State, parent and so on; the name before them may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
