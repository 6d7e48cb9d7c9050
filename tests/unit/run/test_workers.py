"""Jobs in processes: every result arrives, so does the first error, and no worker outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from dima.run.workers import run_jobs


def square(number: int) -> int:
    return number * number


def fail_at_3(number: int) -> int:
    if number == 3:
        raise ValueError(f"no {number}")
    return number


def die_at_1(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def note_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).write_text("")
    time.sleep(120)
    (folder / "finished").write_text("")


def fail_or_write(job: tuple[Path, bool]) -> None:
    """The first job fails as soon as the second has begun; the second would write later."""
    folder, fails = job
    if fails:
        while not (folder / "begun").exists():
            time.sleep(0.01)
        raise ValueError("first")
    (folder / "begun").write_text("")
    time.sleep(3)
    (folder / "late").write_text("")


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_result_arrives(num_workers: int) -> None:
    assert sorted(run_jobs(square, range(7), num_workers)) == [0, 1, 4, 9, 16, 25, 36]
    assert list(run_jobs(square, [], num_workers)) == []


def test_an_error_arrives_as_it_was() -> None:
    with pytest.raises(ValueError, match="^no 3$"):
        list(run_jobs(fail_at_3, range(8), 1))


def test_an_error_of_a_worker_arrives_and_nobody_works_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^first$"):
        list(run_jobs(fail_or_write, [(tmp_path, True), (tmp_path, False)], 2))
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "late").exists()


@pytest.mark.slow
def test_whoever_stops_listening_stops_the_work(tmp_path: Path) -> None:
    results = run_jobs(square, range(1000), 2)
    next(results)
    results.close()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_killed_worker_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="a worker process died .killed, or out of memory.; go on with fewer"):
        list(run_jobs(die_at_1, range(4), 2))


def _work(folder: Path) -> None:
    list(run_jobs(note_and_sleep, [folder, folder], 2))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=_work, args=(tmp_path,))
    parent.start()
    deadline = time.monotonic() + 240
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [int(entry.name) for entry in tmp_path.iterdir()]
    assert all(map(_is_alive, workers))
    parent.kill()
    parent.join()
    while any(map(_is_alive, workers)):
        assert time.monotonic() < deadline, "a worker goes on without its parent"
        time.sleep(0.05)
