"""Steps the worlds of SMAX, of the package jaxmarl, in a process of its own: jaxmarl pins JAX and much else.

Started by its path. Knows the standard library, NumPy, `worker_wire.py` beside it, JAX and jaxmarl, and nothing else of
the toolkit (but for `--serve toy:skirmish`). Agents see everything here: the toolkit's side hides what is to be hidden.
The protocol: docs/smac.md; the toolkit's side of it, `envs.smax_vector`, takes the layout from here.
"""

import argparse
import collections
import importlib
import json
import os
import re
import sys

import numpy as np

wire = importlib.import_module("envs.worker_wire" if __package__ else "worker_wire")

PROTOCOL = 1  # said in the hello; goes up whenever a message changes
_HERE = os.path.dirname(os.path.abspath(__file__))

Sizes = collections.namedtuple("Sizes", ["worlds", "agents", "obs", "state", "actions"])


def reset_parts(sizes):
    """The arrays of a reset: which worlds begin anew, and the seed of each."""
    return (("rows", "<u1", (sizes.worlds,)), ("seed", "<i8", (sizes.worlds,)))


def step_parts(sizes):
    """The arrays of a step: which worlds are stepped, and the discrete action of each agent."""
    return (("rows", "<u1", (sizes.worlds,)), ("action", "<i4", (sizes.worlds, sizes.agents)))


def result_parts(sizes):
    """The arrays of a result; worlds that were not asked for show again what they showed last.

    `over`: a side has nobody left; `won`: it is the enemy's, and not both.
    """
    return (
        ("obs", "<f4", (sizes.worlds, sizes.agents, sizes.obs)),
        ("state", "<f4", (sizes.worlds, sizes.state)),
        ("available", "<u1", (sizes.worlds, sizes.agents, sizes.actions)),
        ("reward", "<f4", (sizes.worlds,)),
        ("over", "<u1", (sizes.worlds,)),
        ("won", "<u1", (sizes.worlds,)),
    )


def serve(channel, worlds):
    """Say hello, then answer requests until asked to close."""
    told = {"protocol": PROTOCOL, "sizes": worlds.sizes._asdict(), "obs_names": worlds.obs_names}
    channel.send(wire.HELLO, json.dumps(dict(told, versions=worlds.versions)).encode())
    requests = {wire.RESET: (reset_parts, worlds.reset), wire.STEP: (step_parts, worlds.step)}
    limit = max(wire.num_bytes(parts(worlds.sizes)) for parts, _ in requests.values())
    while True:
        kind, payload = channel.receive(limit)
        if kind == wire.CLOSE:
            return
        if kind not in requests:
            raise wire.ProtocolError(f"no request: kind {kind!r} with {len(payload)} bytes")
        parts, answer = requests[kind]
        arrays = answer(**wire.unpack(parts(worlds.sizes), payload))
        channel.send(wire.RESULT, wire.pack(result_parts(worlds.sizes), arrays))


class SmaxWorlds:
    """The worlds of one map against SMAX's own scripted enemy.

    A world's chance follows from its seed alone. With `batching` "map" JAX steps one world after the other, in one
    compiled program, and a world's numbers do not depend on the others at all; with "vmap" all at once, which may
    change the last bits of a number.

    Args:
        name: of the map, as SMAX spells it.
        num_worlds: W.
        settings: "batching", and what SMAX is built with.
    """

    def __init__(self, name, num_worlds, settings):
        jax, smax = importlib.import_module("jax"), importlib.import_module("jaxmarl.environments.smax")
        known = smax.smax_env.MAP_NAME_TO_SCENARIO
        if name not in known:
            raise ValueError(f"there is no map {name!r}; expected one of {', '.join(known)}")
        settings = dict(settings)
        self._jax, batching = jax, settings.pop("batching")
        self._env = smax.HeuristicEnemySMAX(scenario=known[name], **settings)
        self._num_allies = self._env.num_agents
        sizes = (self._env.obs_size, self._env.state_size, self._env.num_ally_actions)
        self.sizes = Sizes(num_worlds, self._num_allies, *map(int, sizes))
        self.obs_names = obs_names(self._env)
        self.versions = {name: wire.version(name) for name in ("jax", "jaxlib", "jaxmarl", "numpy")}
        self.versions.update(python=sys.version.split()[0], backend=jax.default_backend())
        self._reset, self._step = self._all_rows(self._reset_row, batching), self._all_rows(self._step_row, batching)
        nobody, words = np.zeros(num_worlds, bool), np.zeros((num_worlds, 2), np.uint32)
        self._carry = self._all_rows(self._begin, batching)(words)
        self._ask(self._reset, nobody, words)  # compiled now, before anybody waits for a step
        self._ask(self._step, nobody, np.zeros((num_worlds, self._num_allies), np.int32))

    def reset(self, rows, seed):
        """Begin anew in the worlds marked in `rows` [W]."""
        words = np.stack([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF], axis=1)
        return self._ask(self._reset, rows != 0, words.astype(np.uint32))

    def step(self, rows, action):
        """One step of the worlds marked in `rows` [W] with the allies' `action` [W,N]."""
        return self._ask(self._step, rows != 0, np.ascontiguousarray(action))

    def _ask(self, function, rows, argument):
        self._carry = function(self._carry, rows, argument)
        return {name: np.asarray(array) for name, array in self._carry[1].items()}

    def _all_rows(self, function, batching):
        jax = self._jax
        if batching == "vmap":
            return jax.jit(jax.vmap(function))
        return jax.jit(lambda *rows: jax.lax.map(lambda row: function(*row), rows))

    def _reset_row(self, carry, is_asked, words):
        return self._jax.lax.cond(is_asked, lambda: self._begin(words), lambda: carry)

    def _step_row(self, carry, is_asked, action):
        return self._jax.lax.cond(is_asked, lambda: self._go_on(carry, action), lambda: carry)

    def _begin(self, words):
        """A world's chance and state, and what it shows; `words` [2]: the seed, which is the key as it is."""
        key, first = self._jax.random.split(words)
        obs, state = self._env.reset(first)
        return self._strongly_typed(((key, state), self._shown(obs, state, 0.0)))

    def _go_on(self, carry, action):
        (key, state), _ = carry
        key, now = self._jax.random.split(key)
        actions = {agent: action[i] for i, agent in enumerate(self._env.agents)}
        obs, state, reward, _, _ = self._env.step_env(now, state, actions)  # `step` would begin anew by itself
        return self._strongly_typed(((key, state), self._shown(obs, state, reward[self._env.agents[0]])))

    def _shown(self, obs, state, reward):
        jnp, agents = self._jax.numpy, self._env.agents
        available = self._env.get_avail_actions(state)
        is_alive = state.state.unit_alive
        allies, enemies = is_alive[: self._num_allies].any(), is_alive[self._num_allies :].any()
        return {
            "obs": jnp.stack([obs[agent] for agent in agents]),
            "state": obs["world_state"].astype(jnp.float32),
            "available": jnp.stack([available[agent] for agent in agents]).astype(jnp.uint8),
            "reward": jnp.asarray(reward, jnp.float32),
            "over": ~(allies & enemies),
            "won": allies & ~enemies,
        }

    def _strongly_typed(self, tree):
        """Without JAX's weak types, which would differ between a world that begins and one that goes on."""
        return self._jax.tree.map(lambda x: self._jax.numpy.asarray(x, self._jax.numpy.asarray(x).dtype), tree)


def obs_names(env):
    """What the entries of an ally's observation are, as its first agent numbers the units, in SMACv2's words."""

    def spelt(feature, whom, number=""):
        bit = re.fullmatch(r"unit_type_bits?_(\d+)", feature)
        return f"{whom}_unit_type{number}_bit_{bit[1]}" if bit else f"{whom}_{feature}{number}"

    others = [("ally", f"_{i}") for i in range(1, env.num_allies)] + [
        ("enemy", f"_{i}") for i in range(env.num_enemies)
    ]
    names = [spelt(feature, whom, number) for whom, number in others for feature in env.unit_features]
    return names + [spelt(feature, "own") for feature in env.own_features]


def build_toy(name, num_worlds, settings):
    """A battle of the toolkit's own, to test the worker with; needs the toolkit's own Python."""
    sys.path.insert(0, os.path.dirname(_HERE))
    return importlib.import_module(f"envs.toy.{name}").Skirmish(num_worlds, **settings)


def main(arguments=None):
    """Build what `--serve` names and serve it through the inherited socket `--channel`; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", required=True, help="smax:MAP, or toy:skirmish")
    parser.add_argument("--with", dest="how", required=True, help="what it is built with, as JSON")
    parser.add_argument("--num-worlds", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True, help="file descriptor of a Unix socket")
    options = parser.parse_args(arguments)
    origin, _, name = options.serve.partition(":")

    def build_and_serve(channel):
        build = {"smax": SmaxWorlds, "toy": build_toy}[origin]
        serve(channel, build(name, options.num_worlds, json.loads(options.how)))

    return wire.work(options.channel, build_and_serve)


if __name__ == "__main__":
    sys.exit(main())
