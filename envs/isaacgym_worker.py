"""Steps Bi-DexHands' worlds in a process of its own, under the old Python that Isaac Gym needs: 3.7 or 3.8.

Started by its path. Knows the standard library, NumPy, `worker_wire.py` beside it and what Bi-DexHands brings, and
nothing else of the toolkit (but for `--serve mujoco:TASK`).
The protocol: docs/isaacgym.md; the toolkit's side of it, `envs.isaacgym_link`, takes the layout from here.
"""

import argparse
import collections
import importlib.util
import json
import os
import random
import struct
import sys
import tempfile

import numpy as np

wire = importlib.import_module("envs.worker_wire" if __package__ else "worker_wire")

PROTOCOL = 1  # said in the hello; goes up whenever a message changes
SEED = struct.Struct("<q")
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = ("isaacgym", "bidexhands", "numpy", "torch", "mujoco")

Sizes = collections.namedtuple("Sizes", ["worlds", "agents", "obs", "state", "action"])


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
        versions = {name: wire.version(name) for name in _PACKAGES if name in sys.modules}
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
    channel.send(wire.HELLO, json.dumps(worlds.hello()).encode())
    request, result = request_parts(worlds.sizes), result_parts(worlds.sizes)
    while True:
        kind, payload = channel.receive(wire.num_bytes(request))
        if kind == wire.CLOSE:
            return
        if kind == wire.RESET and len(payload) == SEED.size:
            arrays = worlds.reset(*SEED.unpack(payload))
        elif kind == wire.STEP:
            arrays = worlds.step(**wire.unpack(request, payload))
        else:
            raise wire.ProtocolError(f"no request: kind {kind!r} with {len(payload)} bytes")
        channel.send(wire.RESULT, wire.pack(result, arrays))


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
    origin, _, task = options.serve.partition(":")

    def build_and_serve(channel):
        build = {"isaacgym": build_isaacgym, "mujoco": build_mujoco}[origin]
        serve(channel, Worlds(build(task, options.num_worlds, options.how)))

    return wire.work(options.channel, build_and_serve)


def _numpy(array):
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


if __name__ == "__main__":
    sys.exit(main())
