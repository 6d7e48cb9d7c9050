"""One worker process: requests are answered whoever dies, errors arrive as they were, and nobody is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dima.run.collect_worker import ANSWER, ERROR, READY, portable
from dima.run.worker_link import WorkerLink, WorkerLost
from envs.base import EnvError
from tests.support.processes import HAS_PROC, is_alive


def serve(connection: Connection, folder: Path, parent: int) -> None:
    """Answers with the process and the request; `die` kills the first N workers that get it, `fail` is an error."""
    connection.send_bytes(READY)
    with contextlib.suppress(EOFError):
        while True:
            words = connection.recv_bytes().decode()
            number = len(list(folder.iterdir()))
            if words.startswith("die") and number < int(words.split()[1]):
                (folder / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if words == "exit":
                os._exit(7)
            if words == "sleep":
                (folder / "asleep").touch()
                time.sleep(100)
            if words == "fail":
                connection.send_bytes(ERROR)
                connection.send(portable(EnvError("the env is broken", "mend it"), "worker 0"))
                continue
            connection.send_bytes(ANSWER)
            connection.send_bytes(f"{os.getpid()} {words}".encode())


@pytest.fixture
def link(tmp_path: Path) -> Iterator[WorkerLink]:
    link = WorkerLink("collect worker 4", serve, tmp_path)
    yield link
    link.close()


def test_a_worker_lives_on_and_its_errors_arrive_as_they_were(link: WorkerLink, tmp_path: Path) -> None:
    first, second = (link.send((text,), "counting").result().split() for text in (b"one", b"two"))
    assert (first[1], second[1]) == (b"one", b"two")
    assert first[0] == second[0]
    with pytest.raises(EnvError) as caught:
        link.send((b"fail",), "failing").result()
    assert str(caught.value) == "the env is broken"
    assert caught.value.advice == "mend it"
    assert "in worker 0" in caught.value.__notes__[0]
    link.close()
    assert not HAS_PROC or not is_alive(int(first[0]))


def test_a_dead_worker_is_named_and_replaced(
    link: WorkerLink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = link.send((b"die 1",), "counting sheep").result().split()
    [victim] = [entry.name for entry in tmp_path.iterdir()]
    assert answer[1:] == [b"die", b"1"]
    assert answer[0].decode() != victim
    assert capsys.readouterr().err == (
        f"warning: collect worker 4 (pid {victim}) was killed by SIGKILL while counting sheep; "
        "a new one begins where it began, no step is lost\n"
    )


@pytest.mark.slow
def test_three_deaths_in_a_row_are_no_accident(link: WorkerLink, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        WorkerLost, match=r"^collect worker 4 \(pid \d+\) ended with exit code 7 while .* of 3 that died"
    ):
        link.send((b"exit",), "leaving").result()
    assert len(re.findall("^warning: .* exit code 7 while leaving", capsys.readouterr().err, re.MULTILINE)) == 2


def test_closing_does_not_wait_for_work(link: WorkerLink, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = link.send((b"sleep",), "sleeping")
    while not (tmp_path / "asleep").exists():
        time.sleep(0.01)
    began = time.monotonic()
    link.close()
    assert time.monotonic() - began < 5
    with pytest.raises(WorkerLost):
        waiting.result()
    assert capsys.readouterr().err == ""


class Demanding(Exception):
    """Cannot be made again from its message."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")


def test_an_error_that_cannot_travel_is_put_into_words() -> None:
    assert isinstance(portable(KeyError("x"), "here"), KeyError)
    demanding = portable(Demanding("a", "b"), "here")
    assert (type(demanding), str(demanding)) == (RuntimeError, "Demanding: a: b")

    class Refused(ValueError):
        pass

    assert (type(local := portable(Refused("no"), "here")), str(local)) == (ValueError, "Refused: no")
