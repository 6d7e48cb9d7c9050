"""What a worker process of `dima train` does: answer each request with real steps, from a copy of model and policy.

Everything it needs to do a request again, in another process, travels with requests and answers; see `worker_source`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from dima.run.messages import is_user_error
from dima.run.runtime import Randomness, derive_seed
from dima.run.snapshot import pack, unpack
from dima.run.steps_source import LocalSource, Unit, collecting_agents
from dima.run.workers import begin_worker
from envs.base import EnvConfig
from envs.collector import Collector
from imagination.policy import PolicyConfig
from worldmodel.protocol import WorldModelConfig
from worldmodel.types import EnvSpec

READY, ANSWER, ERROR = b"ready", b"answer", b"error"
"""First frame of what a worker sends; an answer or an error follows in a second one."""


@dataclasses.dataclass(frozen=True)
class WorkerTask:
    """Everything a worker is made from; picklable."""

    number: int
    """Of the worker, from 0; names its generators."""
    env: EnvConfig
    world_model: WorldModelConfig
    policy: PolicyConfig
    spec: EnvSpec
    seed: int
    """Of the run."""
    first_stream: int
    num_envs: int
    """Its streams: `num_envs` from `first_stream` on."""
    unit: Unit
    num_steps: int
    """Its share of a round, in env steps."""


class CollectWorker:
    """The worker's own model, policy and environments, on the CPU."""

    def __init__(self, task: WorkerTask) -> None:
        """Build everything as `build_learner` does: what is drawn at construction is the same in every process."""
        self._randomness = Randomness(task.seed, torch.device("cpu"))
        self._model = task.world_model.build(task.spec)
        self._model.train(False)
        self._policy = task.policy.build(task.spec, self._model.actor_dim)
        explore, sample = (self._randomness.generator(f"{name}/{task.number}") for name in ("explore", "collect"))
        agents = collecting_agents(self._model, self._policy, task.spec, explore, sample)
        collector = Collector(task.env, task.num_envs, derive_seed(task.seed, "collect"), task.first_stream)
        self._source = LocalSource(collector, agents, task.unit, task.num_steps)
        self._is_new = True

    def answer(self, request: dict[str, Any], weights: dict[str, Any] | None) -> dict[str, Any]:
        """Collect one round as `request` says, with `weights` where they matter.

        A worker that has just begun first goes to the state that comes with the request; an older one is there.
        """
        acting, state = request["acting"], request["state"]
        if weights is not None:
            self._model.load_state_dict(weights["world_model"])
            self._policy.load_state_dict(weights["policy"])
        if self._is_new and state is not None:
            self._source.load_state_dict(state["collector"], acting)
            self._randomness.load_state_dict(state["random"])
        self._is_new = False
        trajectories = [dict(vars(trajectory)) for trajectory in self._source.collect(acting)]
        return {
            "trajectories": trajectories,
            "episodes": [dataclasses.asdict(episode) for episode in self._source.episodes],
            "state": {"collector": self._source.state_dict(), "random": self._randomness.state_dict()},
        }

    def close(self) -> None:
        """Close the environments."""
        self._source.close()


def serve(connection: Connection, task: WorkerTask, parent: int) -> None:
    """Answer requests until the connection or the process `parent` ends, or something goes wrong: then say what."""
    begin_worker(parent)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # whoever asked is gone
        try:
            worker = CollectWorker(task)
        except Exception as error:
            _send_error(connection, error, task.number)
            return
        connection.send_bytes(READY)
        with contextlib.closing(worker):
            while _answer_next(connection, worker, task.number):
                pass


def _answer_next(connection: Connection, worker: CollectWorker, number: int) -> bool:
    """Serve one request; False when that failed, for then the environments stand nobody knows where."""
    request, weights = connection.recv_bytes(), connection.recv_bytes()
    try:
        answer = pack(worker.answer(unpack(request), unpack(weights) if weights else None))
    except Exception as error:
        _send_error(connection, error, number)
        return False
    connection.send_bytes(ANSWER)
    connection.send_bytes(answer)
    return True


def _send_error(connection: Connection, error: Exception, number: int) -> None:
    connection.send_bytes(ERROR)
    connection.send(portable(error, f"collect worker {number}"))


def portable(error: Exception, where: str) -> Exception:
    """`error` as it can be raised in another process: with the traceback in words, and of a type that survives."""
    text = "".join(traceback.format_exception(error))
    error.add_note(f"in {where}:\n{text}")
    try:
        ForkingPickler.dumps(error)
        if str(copy.copy(error)) == str(error):  # made anew from its arguments, as over there
            return error
    except Exception:  # an exception class may ask for more than it keeps, or hold what cannot be sent
        pass
    general = ValueError if is_user_error(error) else RuntimeError
    plain = general(f"{type(error).__name__}: {error}")
    plain.add_note(f"in {where}:\n{text}")
    return plain
