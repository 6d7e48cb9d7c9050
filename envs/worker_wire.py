"""What goes between the toolkit and a worker process that steps a simulator under a Python of its own.

For the standard library and NumPy, from Python 3.7 on, and without anything of the toolkit: a worker's script has this
file beside it. Messages are sizes and raw numbers, text is JSON: nothing that arrives is executed.
"""

import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback

import numpy as np

HELLO, RESET, STEP, RESULT, CLOSE, ERROR = b"H", b"R", b"S", b"A", b"C", b"E"
MAX_TEXT = 1 << 20
"""Bytes that a hello or an error may have."""

_MAGIC = b"DIMA"
_HEADER = struct.Struct("<4scxxxQ")  # magic, kind, bytes that follow


class ProtocolError(Exception):
    """What arrived is no message of this protocol."""


class Channel:
    """One end of the socket between toolkit and worker. Deadlines are of `time.monotonic`; None waits for ever."""

    def __init__(self, connection):
        self._connection = connection

    def send(self, kind, payload=b"", deadline=None):
        """Send one message."""
        self._connection.settimeout(_seconds_until(deadline))
        self._connection.sendall(_HEADER.pack(_MAGIC, kind, len(payload)) + payload)

    def receive(self, limit, deadline=None):
        """The kind and the at most `limit` bytes of the next message; `EOFError` when the other side has ended."""
        magic, kind, length = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if magic != _MAGIC:
            raise ProtocolError(f"it begins with {magic!r}, expected {_MAGIC!r}")
        if length > limit:
            raise ProtocolError(f"it announces {length} bytes, expected at most {limit}")
        return kind, self._read(length, deadline)

    def _read(self, length, deadline):
        read = bytearray()
        while len(read) < length:
            self._connection.settimeout(_seconds_until(deadline))
            chunk = self._connection.recv(min(length - len(read), 1 << 20))
            if not chunk:
                raise EOFError("the other side has ended")
            read += chunk
        return bytes(read)


def num_bytes(parts):
    """Bytes that the arrays `parts`, each (name, dtype, shape), have together."""
    return sum(np.dtype(kind).itemsize * int(np.prod(shape)) for _, kind, shape in parts)


def pack(parts, arrays):
    """`arrays` by name, as bytes in the order of `parts`; `ValueError` for a wrong shape."""
    for name, _, shape in parts:
        if np.shape(arrays[name]) != shape:
            raise ValueError(f"{name} has shape {list(np.shape(arrays[name]))}; expected {list(shape)}")
    return b"".join(np.asarray(arrays[name], dtype=kind).tobytes() for name, kind, _ in parts)


def unpack(parts, payload):
    """The arrays by name, read-only; `ProtocolError` for a wrong number of bytes."""
    if len(payload) != num_bytes(parts):
        raise ProtocolError(f"it has {len(payload)} bytes, expected {num_bytes(parts)}")
    arrays, offset = {}, 0
    for name, kind, shape in parts:
        arrays[name] = np.frombuffer(payload, kind, int(np.prod(shape)), offset).reshape(shape)
        offset += arrays[name].nbytes
    return arrays


def work(number, serve):
    """A worker's life: `serve(channel)` on the inherited socket `number`; the exit code.

    It ends with the toolkit, also when that is killed. What `serve` raises is told to the toolkit as an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the toolkit's; it ends this process
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    channel = Channel(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=number))
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]  # our names are not the simulators'
    try:
        serve(channel)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # whoever asked is gone
    except BaseException as error:  # SystemExit too: Bi-DexHands quits where Isaac Gym cannot begin
        told = {"type": type(error).__name__, "text": str(error)[:2000], "module": getattr(error, "name", None)}
        channel.send(ERROR, json.dumps(dict(told, traceback=traceback.format_exc()[-20000:])).encode())
        return 1
    return 0


def version(package):
    """Of an imported package, as far as that can be told."""
    try:
        return importlib.import_module("importlib.metadata").version(package.replace("_", "-"))
    except ImportError:  # Python 3.7, or a package that was never installed by name
        return str(getattr(sys.modules[package], "__version__", "unknown"))


def _end_with(parent):
    """A killed toolkit tells nobody: look for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _seconds_until(deadline):
    return None if deadline is None else max(deadline - time.monotonic(), 1e-3)
