"""What goes between toolkit and workers: messages keep their borders, and what is none is refused."""

from __future__ import annotations

import ast
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from envs import worker_wire as wire

SOURCE = Path(wire.__file__).read_text()


@pytest.mark.parametrize("version", [(3, 7), (3, 8)])
def test_it_is_written_for_the_oldest_python_of_a_worker(version: tuple[int, int]) -> None:
    ast.parse(SOURCE, feature_version=version)


def test_it_needs_the_standard_library_and_numpy() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(SOURCE)):
        assert not isinstance(node, ast.ImportFrom)
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    assert not imported & {"pickle", "marshal", "shelve", "multiprocessing"}


class Ends(NamedTuple):
    ours: socket.socket
    theirs: wire.Channel


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Ends(ours, wire.Channel(theirs))


def test_messages_keep_their_borders(ends: Ends) -> None:
    sender = wire.Channel(ends.ours)
    sender.send(wire.STEP, b"one")
    sender.send(wire.CLOSE)
    assert ends.theirs.receive(10) == (wire.STEP, b"one")
    assert ends.theirs.receive(10) == (wire.CLOSE, b"")


def test_what_is_no_message_is_refused(ends: Ends) -> None:
    ends.ours.sendall(b"Importing module 'gym_38'\n")
    with pytest.raises(wire.ProtocolError, match="it begins with b'Impo', expected b'DIMA'"):
        ends.theirs.receive(10)


def test_a_length_out_of_all_proportion_is_refused_before_it_is_read(ends: Ends) -> None:
    wire.Channel(ends.ours).send(wire.STEP, bytes(11))
    with pytest.raises(wire.ProtocolError, match="announces 11 bytes, expected at most 10"):
        ends.theirs.receive(10)


def test_a_message_cut_short_is_an_end(ends: Ends) -> None:
    ends.ours.sendall(b"DIMA")
    ends.ours.close()
    with pytest.raises(EOFError):
        ends.theirs.receive(10)


def test_the_deadline_counts_for_the_whole_message(ends: Ends) -> None:
    ends.ours.sendall(b"DIMA")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ends.theirs.receive(10, began + 0.1)
    assert time.monotonic() - began < 5.0
