"""A process that steps a simulator under a Python of its own: started, asked, its end named, and never left behind.

What goes over its socket: `envs.worker_wire`. Knows no simulator and no layout of messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from envs import worker_wire as wire
from envs.errors import EnvError
from worldmodel.config import ConfigError

Arrays = dict[str, np.ndarray]
Parts = Sequence[tuple[str, str, tuple[int, ...]]]
"""Names, types and shapes of a message's arrays."""
HelloT = TypeVar("HelloT")

_PATIENCE_S = 5.0
"""Seconds that a worker which was asked to close, or has hung up, may take to end."""
_LAST_WORDS = 4000
"""Bytes kept of what the worker and its simulator print."""


class WorkerRefused(EnvError):
    """The worker could not do what it was asked for; `kind`: the exception's class, `module`: the one it misses."""

    def __init__(self, message: str, kind: str, module: str | None) -> None:
        super().__init__(message)
        self.kind = kind
        self.module = module


class WorkerProcess:
    """A running worker. Every way out of a request but an answer ends it.

    Args:
        command: starts it; the socket's number is added.
        name: for messages, e.g. "isaacgym/over".
        timeout_s: for one request.
        environment: of the process; None: this process's own.

    Raises:
        ConfigError: when nothing can be started.
        WorkerRefused: when the worker says that something went wrong.
        EnvError: when it died, hung, or does not keep the protocol.
    """

    def __init__(
        self, command: Sequence[str], name: str, *, timeout_s: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._process, self._socket = _start(list(command), name, environment)
        self._channel = wire.Channel(self._socket)
        self._words = _LastWords(self._process)
        # Also when nobody closes: a worker ends with the object that asks it, or with the interpreter.
        self._finalizer = weakref.finalize(self, _see_off, self._process, self._socket, self._words, 0.0)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def hello(self, read: Callable[[dict[str, Any]], HelloT], protocol: int, timeout_s: float) -> HelloT:
        """What `read` makes of the worker's first message, which must come within `timeout_s`."""
        kind, payload = self._ask(None, b"", wire.MAX_TEXT, timeout_s, "starting", "env.start_timeout_s")
        try:
            if kind != wire.HELLO:
                raise ValueError(f"kind {kind!r}, expected a hello")
            told = json.loads(payload)
            if told["protocol"] != protocol:
                raise ValueError(f"it speaks protocol {told['protocol']!r}, this toolkit speaks {protocol}")
            return read(told)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._ended(f"began with what is no hello: {error}", 0.0) from error

    def arrays(self, request: bytes, payload: bytes, result: Parts, doing: str) -> Arrays:
        """The arrays `result` by name, in answer to `request`."""
        limit = max(wire.MAX_TEXT, wire.num_bytes(result))
        kind, answer = self._ask(request, payload, limit, self._timeout_s, doing, "env.timeout_s")
        try:
            if kind != wire.RESULT:
                raise wire.ProtocolError(f"kind {kind!r}, expected a result")
            return wire.unpack(result, answer)
        except wire.ProtocolError as error:
            raise self._ended(f"sent what is no answer while {doing}: {error}", 0.0) from error

    def close(self) -> None:
        """End the worker: as it likes for some seconds, then by force."""
        if self._finalizer.detach() is None:
            return
        with contextlib.suppress(OSError):
            self._channel.send(wire.CLOSE, deadline=time.monotonic() + 1.0)
        _see_off(self._process, self._socket, self._words, _PATIENCE_S)

    def _ask(
        self, request: bytes | None, payload: bytes, limit: int, timeout_s: float, doing: str, setting: str
    ) -> tuple[bytes, bytes]:
        """Send `request`, if there is one, and wait for what comes; every way out but an answer ends the worker."""
        if not self._finalizer.alive:
            raise EnvError(f"{self._name}: its worker has ended; build the environment anew")
        deadline = time.monotonic() + timeout_s
        try:
            if request is not None:
                self._channel.send(request, payload, deadline)
            kind, answer = self._channel.receive(limit, deadline)
            told = dict(json.loads(answer)) if kind == wire.ERROR else None
        except TimeoutError as error:
            raise self._ended(f"gave no answer within {timeout_s:g} s while {doing} ({setting})", 0.0) from error
        except (EOFError, OSError) as error:
            raise self._ended(f"ended while {doing}", _PATIENCE_S) from error
        except (wire.ProtocolError, ValueError, TypeError) as error:
            raise self._ended(f"sent what is no message of this protocol while {doing}: {error}", 0.0) from error
        except BaseException:  # Ctrl-C: half an answer may lie in the socket
            self._end(0.0)
            raise
        if told is not None:
            raise self._refused(told, doing)
        return kind, answer

    def _refused(self, told: dict[str, Any], doing: str) -> EnvError:
        self._end(_PATIENCE_S)
        kind, text = str(told.get("type")), " ".join(str(told.get("text")).split())
        if kind == "SystemExit":  # Bi-DexHands quits: why, it has printed
            text = self._words.tail()
        error = WorkerRefused(f"{self._name}: {kind} while {doing}: {text}", kind, told.get("module"))
        error.add_note(f"in the worker:\n{told.get('traceback')}")
        return error

    def _ended(self, what: str, patience_s: float) -> EnvError:
        """See the worker off, and say what happened, how it ended and what it said last."""
        pid, how = self.pid, self._end(patience_s)
        words = self._words.tail()
        said = f"; its last words: {words}" if words else "; it said nothing"
        return EnvError(f"{self._name}: the worker (pid {pid}) {what}; it {how}{said}")

    def _end(self, patience_s: float) -> str:
        self._finalizer.detach()
        return _see_off(self._process, self._socket, self._words, patience_s)


class _LastWords:
    """Reads what a process prints and keeps the end of it; a full pipe would stop the process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """The last lines, as one."""
        lines = self._kept.decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines if line.strip())[-600:]

    def finish(self) -> None:
        """Read what is left, unless a child of the process keeps the pipe open."""
        self._thread.join(1.0)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := pipe.read(4096):
                self._kept += chunk
                del self._kept[:-_LAST_WORDS]


def _start(
    command: list[str], name: str, environment: Mapping[str, str] | None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process in a session of its own, which Ctrl-C does not reach, and our end of the socket that it inherits."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [*command, "--channel", str(theirs.fileno())],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=None if environment is None else dict(environment),
        )
    except OSError as error:
        ours.close()
        raise ConfigError(f"{name}: {command[0]} cannot be started: {error.strerror}") from error
    finally:
        theirs.close()
    return process, ours


def _see_off(process: subprocess.Popen[bytes], ours: socket.socket, words: _LastWords, patience_s: float) -> str:
    """End `process`, at the latest after `patience_s`, and say how it ended."""
    ours.close()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        words.finish()
        return "was ended"
    words.finish()
    code = process.returncode
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def interpreter(named: str) -> str | None:
    """The absolute path of the interpreter `named`, or None where there is none."""
    python = shutil.which(os.path.expanduser(named))
    return None if python is None else os.path.abspath(python)


def activated(python: Path) -> dict[str, str]:
    """This process's environment as if that of `python` were activated, without our own import paths.

    Isaac Gym compiles a part of itself with the `ninja` beside the interpreter, and loads the interpreter's library.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = os.pathsep.join([str(python.parent), environment.get("PATH", os.defpath)])
    libraries = python.parent.parent / "lib"
    if any(libraries.glob("libpython3*.so*")):
        known = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([known, str(libraries)] if known else [str(libraries)])
    return environment
