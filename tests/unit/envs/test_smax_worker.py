"""SMAX's worker and its link, on a battle that needs no JAX: arrays arrive, ends are named, no process stays behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs import smax_worker as layout
from envs import worker_wire as wire
from envs.base import EnvError
from envs.smax_vector import SmaxWorker
from envs.toy.skirmish import Skirmish
from envs.worker_process import WorkerRefused
from tests.support.processes import HAS_PROC, is_alive, wait_until
from tests.support.skirmish_served import served, start

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="looks for processes in /proc")


@pytest.fixture
def worker() -> Iterator[SmaxWorker]:
    worker = start(3, timeout_s=10.0)
    yield worker
    pid = worker.pid
    worker.close()
    assert not is_alive(pid)


def reset(worker: SmaxWorker) -> dict[str, np.ndarray]:
    return worker.reset(np.ones(3), np.array([5, 6, 2**40 + 7]))


def test_hello_and_arrays_are_those_of_the_battle(worker: SmaxWorker) -> None:
    battle = Skirmish(3)
    assert worker.hello.sizes == battle.sizes == (3, 3, 25, 25, 7)
    assert list(worker.hello.obs_names) == battle.obs_names
    assert dict(worker.hello.versions).keys() == {"numpy"}
    rng, damage = np.random.default_rng(0), 0.0
    arrays, expected = reset(worker), battle.reset(np.ones(3), np.array([5, 6, 2**40 + 7]))
    for step in range(12):
        for name, kind, _ in layout.result_parts(battle.sizes):
            np.testing.assert_array_equal(arrays[name], np.asarray(expected[name]).astype(kind))
        rows = np.array([1, step % 2, 1], np.uint8)
        action = np.where(arrays["available"], rng.random(arrays["available"].shape), -1.0).argmax(-1)
        arrays, expected = worker.step(rows, action), battle.step(rows, action)
        damage += arrays["reward"].sum()
    assert damage > 0


def test_what_goes_wrong_in_the_worker_arrives_as_text(worker: SmaxWorker) -> None:
    assert not reset(worker)["available"][0, 0, 5]
    with pytest.raises(WorkerRefused, match="smax/skirmish: ValueError while stepping: unit 0 cannot take action 5"):
        worker.step(np.ones(3), np.full((3, 3), 5))
    assert not is_alive(worker.pid)


def test_a_killed_worker_is_named(worker: SmaxWorker) -> None:
    reset(worker)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.pid), "the worker's death")
    with pytest.raises(EnvError, match=rf"smax/skirmish: the worker \(pid {worker.pid}\).*was killed by SIGKILL"):
        reset(worker)
    with pytest.raises(EnvError, match="its worker has ended"):
        reset(worker)


def test_a_worker_that_hangs_is_ended_in_time() -> None:
    worker = start(3, timeout_s=0.5)
    os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(EnvError, match=r"gave no answer within 0\.5 s while resetting \(env\.timeout_s\)"):
        reset(worker)
    assert time.monotonic() - began < 5.0
    assert not is_alive(worker.pid)


def test_a_forgotten_worker_ends() -> None:
    worker = start(1)
    pid = worker.pid
    del worker
    gc.collect()
    assert not is_alive(pid)


TOOLKIT = """
import sys, time
from envs.smax_vector import SmaxWorker
worker = SmaxWorker(sys.argv[1:], "smax/skirmish", start_timeout_s=60, timeout_s=60)
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_when_the_toolkit_is_killed() -> None:
    command = [sys.executable, "-c", TOOLKIT, *served(1)]
    toolkit = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert toolkit.stdout is not None
    with toolkit:
        pid = int(toolkit.stdout.readline())
        assert is_alive(pid)
        toolkit.kill()
        wait_until(lambda: not is_alive(pid), "the end of the worker", 20.0)


def test_what_cannot_be_built_is_said_at_the_start() -> None:
    with pytest.raises(WorkerRefused, match="ModuleNotFoundError while starting: No module named 'envs.toy.juggle'"):
        SmaxWorker(served(1, "juggle"), "smax/juggle", start_timeout_s=60, timeout_s=1)


SAYS = "import os, sys, time; os.write(int(sys.argv[-1]), bytes.fromhex(sys.argv[1])); time.sleep(60)"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"protocol": 2}, "it speaks protocol 2, this toolkit speaks 1"),
        ({"obs_names": ["own_health"]}, "1 names, expected numbers above 0 and a name an entry"),
        ({"sizes": {"worlds": 1}}, "no hello"),
        ({"versions": None}, "no hello"),
    ],
)
def test_what_is_no_hello_is_refused(changes: dict[str, object], problem: str) -> None:
    sizes = {"worlds": 1, "agents": 2, "obs": 3, "state": 4, "actions": 5}
    told = {"protocol": layout.PROTOCOL, "sizes": sizes, "obs_names": ["a", "b", "c"], "versions": {}, **changes}
    payload = json.dumps(told).encode()
    said = b"DIMA" + wire.HELLO + bytes(3) + len(payload).to_bytes(8, "little") + payload
    command = [sys.executable, "-S", "-E", "-c", SAYS, said.hex()]
    with pytest.raises(EnvError, match=problem):
        SmaxWorker(command, "smax/3m", start_timeout_s=20, timeout_s=20)
