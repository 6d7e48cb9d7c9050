"""Steps Bi-DexHands' worlds in a process of its own, under the old Python that Isaac Gym needs: 3.7 or 3.8.

One file, started by its path. Knows the standard library, NumPy and what Bi-DexHands brings, and nothing of the toolkit
(but for `--serve mujoco:TASK`). Messages are sizes and raw numbers, text is JSON: nothing that arrives is executed.
The protocol: docs/isaacgym.md; the toolkit's side of it, `envs.isaacgym_link`, takes the layout from here.
"""

import argparse
import collections
import importlib.util
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback

import numpy as np

PROTOCOL = 1  # said in the hello; goes up whenever a message changes
HELLO, RESET, STEP, RESULT, CLOSE, ERROR = b"H", b"R", b"S", b"A", b"C", b"E"
MAX_TEXT = 1 << 20
"""Bytes that a hello or an error may have."""

SEED = struct.Struct("<q")
_MAGIC = b"DIMA"
_HEADER = struct.Struct("<4scxxxQ")  # magic, kind, bytes that follow
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = ("isaacgym", "bidexhands", "numpy", "torch", "mujoco")

Sizes = collections.namedtuple("Sizes", ["worlds", "agents", "obs", "state", "action"])


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


def request_parts(sizes):
    """The arrays of a step request: worlds that begin anew before it, and everybody's actions in [-1, 1]."""
    return (("again", "<u1", (sizes.worlds,)), ("action", "<f4", (sizes.worlds, sizes.agents, sizes.action)))


def result_parts(sizes):
    """The arrays of a result; `progress`: steps since a world began anew; `success`: nan where no task tells it."""
    return (
        ("obs", "<f4", (sizes.worlds, sizes.agents, sizes.obs)),
        ("state", "<f4", (sizes.worlds, sizes.state)),
        ("reward", "<f8", (sizes.worlds,)),
        ("done", "<u1", (sizes.worlds,)),
        ("progress", "<i8", (sizes.worlds,)),
        ("success", "<f4", (sizes.worlds,)),
    )


def num_bytes(parts):
    """Bytes that the arrays `parts` have together."""
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


class Worlds:
    """The worlds of Bi-DexHands' `MultiVecTask`, or of what behaves as one: arrays in, arrays out."""

    def __init__(self, env):
        self._env = env
        if env.num_agents != 2:
            raise ValueError(f"the worlds have {env.num_agents} agents; expected two, one a hand")
        numbers = (env.num_observations, env.nums_share_observations, env.num_actions)
        self.sizes = Sizes(int(env.num_environments), 2, *map(int, numbers))

    def hello(self):
        """What the other side has to know."""
        versions = {name: _version(name) for name in _PACKAGES if name in sys.modules}
        told = {"sizes": self.sizes._asdict(), "episode_steps": int(self._env.task.max_episode_length)}
        return dict(told, protocol=PROTOCOL, versions=dict(versions, python=sys.version.split()[0]))

    def reset(self, seed):
        """All worlds begin anew, chance follows from `seed`, and the original's `reset` takes its first small step."""
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (what Bi-DexHands draws from)
        for owner, name in ((sys.modules.get("torch"), "manual_seed"), (self._env, "seed")):
            getattr(owner, name, lambda seed: None)(seed)
        self._env.task.reset_buf[:] = 1
        obs, state = self._env.reset()[:2]
        return self._arrays(obs, state, np.zeros(self.sizes.worlds), _numpy(self._env.task.reset_buf))

    def step(self, again, action):
        """One control step of all worlds with `action` [W,N,A]; those marked in `again` [W] begin anew just before."""
        if again.any():  # what the original does itself where an episode is over
            self._env.task.reset_buf[np.flatnonzero(again).tolist()] = 1
        by_agent = np.ascontiguousarray(np.swapaxes(action, 0, 1))  # [W, N, A] -> [N, W, A]
        if hasattr(self._env, "rl_device"):
            by_agent = sys.modules["torch"].from_numpy(by_agent).to(self._env.rl_device)
        obs, state, reward, done = self._env.step(by_agent)[:4]
        return self._arrays(obs, state, _numpy(reward)[:, 0, 0], _numpy(done)[:, 0])

    def _arrays(self, obs, state, reward, done):
        task = self._env.task
        success = _numpy(getattr(task, "successes", np.full(self.sizes.worlds, np.nan)))
        found = {"obs": _numpy(obs), "state": _numpy(state)[:, 0], "reward": reward, "done": done != 0}
        return dict(found, progress=_numpy(task.progress_buf), success=success)


def serve(channel, worlds):
    """Say hello, then answer requests until asked to close."""
    channel.send(HELLO, json.dumps(worlds.hello()).encode())
    request, result = request_parts(worlds.sizes), result_parts(worlds.sizes)
    while True:
        kind, payload = channel.receive(num_bytes(request))
        if kind == CLOSE:
            return
        if kind == RESET and len(payload) == SEED.size:
            arrays = worlds.reset(*SEED.unpack(payload))
        elif kind == STEP:
            arrays = worlds.step(**unpack(request, payload))
        else:
            raise ProtocolError(f"no request: kind {kind!r} with {len(payload)} bytes")
        channel.send(RESULT, pack(result, arrays))


def build_isaacgym(task, num_worlds, device):
    """Bi-DexHands' multi-agent wrapper around `num_worlds` worlds of the original `task`."""
    importlib.import_module("isaacgym")  # refuses to be imported after torch
    spec = importlib.util.find_spec("bidexhands")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'bidexhands'", name="bidexhands")
    os.chdir(os.path.dirname(spec.origin))  # where Bi-DexHands looks for settings, and beside it for assets
    yaml = importlib.import_module("yaml")
    with open(f"cfg/{task}.yaml") as file:
        settings = yaml.safe_load(file)
    settings["env"]["observationType"] = "full_state"  # copies differ: some ship BottleCap with point clouds
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as forced:
        yaml.safe_dump(settings, forced)
        forced.flush()
        pipeline = "cpu" if device == "cpu" else "gpu"
        sys.argv = ["bidexhands", "--headless", "--task", task, "--algo", "mappo", "--num_envs", str(num_worlds)]
        sys.argv += ["--sim_device", device, "--rl_device", device, "--pipeline", pipeline, "--cfg_env", forced.name]
        return importlib.import_module("bidexhands").make(task, algo="mappo")


def build_mujoco(task, num_worlds, physics):
    """The MuJoCo port behind the same interface; needs the toolkit's own Python."""
    sys.path.insert(0, os.path.dirname(_HERE))
    return importlib.import_module("envs.bidexhands.lazy").LazyHands(task, num_worlds, physics=physics)


def main(arguments=None):
    """Build what `--serve` names and serve it through the inherited socket `--channel`; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", required=True, help="isaacgym:TASK with the original's name, mujoco:TASK the port's")
    parser.add_argument("--with", dest="how", required=True, help="Isaac Gym's device, or the port's physics")
    parser.add_argument("--num-worlds", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True, help="file descriptor of a Unix socket")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the toolkit's; it ends this process
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    channel = Channel(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=options.channel))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _HERE]  # envs/isaacgym.py is not isaacgym
    origin, _, task = options.serve.partition(":")
    try:
        build = {"isaacgym": build_isaacgym, "mujoco": build_mujoco}[origin]
        serve(channel, Worlds(build(task, options.num_worlds, options.how)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # whoever asked is gone
    except BaseException as error:  # SystemExit too: Bi-DexHands quits where Isaac Gym cannot begin
        told = {"type": type(error).__name__, "text": str(error)[:2000], "module": getattr(error, "name", None)}
        channel.send(ERROR, json.dumps(dict(told, traceback=traceback.format_exc()[-20000:])).encode())
        return 1
    return 0


def _end_with(parent):
    """A killed toolkit tells nobody: look for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _seconds_until(deadline):
    return None if deadline is None else max(deadline - time.monotonic(), 1e-3)


def _numpy(array):
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def _version(package):
    try:
        return importlib.import_module("importlib.metadata").version(package.replace("_", "-"))
    except ImportError:  # Python 3.7, or a package that was never installed by name
        return str(getattr(sys.modules[package], "__version__", "unknown"))


if __name__ == "__main__":
    sys.exit(main())
