"""The toolkit's side of a worker process: whatever happens to it is named, and none is left behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from envs import isaacgym_worker as layout
from envs import worker_wire as wire
from envs.base import EnvError
from envs.isaacgym_link import IsaacGymWorker, WorkerRefused
from tests.support.isaacgym_served import served, start
from tests.support.processes import HAS_PROC, is_alive, wait_until
from worldmodel.config import ConfigError

pytestmark = [pytest.mark.mujoco, pytest.mark.skipif(not HAS_PROC, reason="looks for processes in /proc")]


@pytest.fixture
def worker() -> Iterator[IsaacGymWorker]:
    worker = start("over", 2, timeout_s=10.0)
    yield worker
    pid = worker.pid
    worker.close()
    assert not is_alive(pid)


def step(worker: IsaacGymWorker) -> dict[str, np.ndarray]:
    return worker.step(np.zeros(2), np.zeros((2, 2, 20)))


def test_hello_and_arrays_arrive(worker: IsaacGymWorker) -> None:
    assert worker.hello.sizes == (2, 2, 211, 398, 20)
    assert worker.hello.episode_steps == 75
    assert dict(worker.hello.versions).keys() >= {"mujoco", "numpy", "python"}
    first, second = worker.reset(1), step(worker)
    assert first["obs"].shape == second["obs"].shape == (2, 2, 211)
    assert (first["reward"] == 0).all()
    assert (second["reward"] > 0).all()
    np.testing.assert_array_equal(second["progress"], [2, 2])
    again = worker.reset(1)
    np.testing.assert_array_equal(again["state"], first["state"])  # chance follows from the seed
    pid = worker.pid
    worker.close()
    worker.close()
    assert not is_alive(pid)
    with pytest.raises(EnvError, match="its worker has ended"):
        step(worker)


def test_a_killed_worker_is_named(worker: IsaacGymWorker) -> None:
    worker.reset(0)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.pid), "the worker's death")
    with pytest.raises(EnvError, match=rf"isaacgym/over: the worker \(pid {worker.pid}\).*was killed by SIGKILL"):
        step(worker)
    with pytest.raises(EnvError, match="its worker has ended"):
        step(worker)


def test_a_worker_that_hangs_is_ended_in_time() -> None:
    worker = start("over", 2, timeout_s=0.5)
    os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(
        EnvError, match=r"gave no answer within 0\.5 s while resetting \(env\.timeout_s\); it was ended"
    ):
        worker.reset(0)
    assert time.monotonic() - began < 5.0
    assert not is_alive(worker.pid)


def test_ctrl_c_while_it_works_leaves_no_process(worker: IsaacGymWorker) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    os.kill(worker.pid, signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.reset(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not is_alive(worker.pid)


def test_ctrl_c_at_the_terminal_does_not_reach_it(worker: IsaacGymWorker) -> None:
    assert os.getsid(worker.pid) != os.getsid(0)
    os.kill(worker.pid, signal.SIGINT)
    assert worker.reset(0)["progress"].tolist() == [1, 1]


def test_a_forgotten_worker_ends() -> None:
    worker = start("over", 1)
    pid = worker.pid
    del worker
    gc.collect()
    assert not is_alive(pid)


TOOLKIT = """
import sys, time
from envs.isaacgym_link import IsaacGymWorker
worker = IsaacGymWorker(sys.argv[1:], "isaacgym/over", start_timeout_s=60, timeout_s=60)
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_when_the_toolkit_is_killed() -> None:
    command = [sys.executable, "-c", TOOLKIT, *served("over", 1)]
    toolkit = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert toolkit.stdout is not None
    with toolkit:
        pid = int(toolkit.stdout.readline())
        assert is_alive(pid)
        toolkit.kill()
        wait_until(lambda: not is_alive(pid), "the end of the worker", 20.0)


def test_what_goes_wrong_in_the_worker_arrives_as_text(worker: IsaacGymWorker) -> None:
    worker.reset(0)
    with pytest.raises(WorkerRefused, match="EnvError while stepping: .*action holds a value that is not") as caught:
        worker.step(np.zeros(2), np.full((2, 2, 20), np.nan))
    assert caught.value.kind == "EnvError"
    assert "Traceback" in caught.value.__notes__[0]
    assert not is_alive(worker.pid)


def test_an_unknown_task_is_said_at_the_start() -> None:
    with pytest.raises(WorkerRefused, match="EnvError while starting: there is no task 'juggle'; expected one of over"):
        IsaacGymWorker(served("juggle", 1), "isaacgym/juggle", start_timeout_s=60, timeout_s=1)


def test_nothing_to_start() -> None:
    with pytest.raises(ConfigError, match="isaacgym/over: /nowhere/python cannot be started: No such file"):
        IsaacGymWorker(["/nowhere/python"], "isaacgym/over", start_timeout_s=1, timeout_s=1)


SAYS = """
import os, sys, time
os.write(int(sys.argv[-1]), bytes.fromhex(sys.argv[1]))
print("carb: no device", flush=True)
time.sleep(60)
"""


def message(kind: bytes, payload: bytes, magic: bytes = b"DIMA") -> bytes:
    return struct.pack("<4scxxxQ", magic, kind, len(payload)) + payload


def hello(**changes: object) -> bytes:
    sizes = {"worlds": 1, "agents": 2, "obs": 3, "state": 4, "action": 5}
    told = {"protocol": layout.PROTOCOL, "sizes": sizes, "episode_steps": 10, "versions": {}, **changes}
    return message(wire.HELLO, json.dumps(told).encode())


def saying(said: bytes, timeout_s: float = 20.0) -> IsaacGymWorker:
    """A process that says `said`, whatever it is asked."""
    command = [sys.executable, "-S", "-E", "-c", SAYS, said.hex()]
    return IsaacGymWorker(command, "isaacgym/over", start_timeout_s=timeout_s, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (hello(protocol=2), "it speaks protocol 2, this toolkit speaks 1"),
        (hello(sizes={"worlds": 1}), "no hello"),
        (hello(episode_steps=0), "expected numbers above 0"),
        (message(wire.HELLO, b"[1]"), "no hello"),
        (message(wire.HELLO, b"\xff\xfe"), "no hello"),
        (message(wire.RESULT, b""), "kind b'A', expected a hello"),
        (message(wire.HELLO, b"{}", magic=b"HTTP"), "it begins with b'HTTP', expected b'DIMA'"),
        (message(wire.ERROR, b"broken"), "no message of this protocol"),
        (struct.pack("<4scxxxQ", b"DIMA", wire.HELLO, 1 << 40), "announces 1099511627776 bytes"),
    ],
)
def test_what_is_no_hello_is_refused(said: bytes, problem: str) -> None:
    with pytest.raises(EnvError, match=problem):
        saying(said)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (message(wire.RESULT, bytes(10)), "sent what is no answer while resetting: it has 10 bytes, expected"),
        (message(wire.HELLO, b"{}"), "sent what is no answer while resetting: kind b'H', expected a result"),
        (b"nonsense of at least a header's length", "sent what is no message of this protocol while resetting"),
    ],
)
def test_a_damaged_answer_ends_the_worker(said: bytes, problem: str) -> None:
    worker = saying(hello() + said)
    with pytest.raises(EnvError, match=problem):
        worker.reset(0)
    assert not is_alive(worker.pid)


def test_its_last_words_are_repeated() -> None:
    with pytest.raises(EnvError, match=r"gave no answer within 1 s while starting \(env\.start_timeout_s\).*carb: no"):
        saying(message(wire.HELLO, bytes(5))[:-1], timeout_s=1.0)
