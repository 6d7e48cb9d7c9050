"""Steps from a worker are those that this process would have collected when they were requested."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from dima.run.collect_worker import WorkerTask
from dima.run.runtime import Randomness, derive_seed
from dima.run.steps_source import LocalSource, collecting_agents
from dima.run.worker_source import WorkerSource, shares
from envs.collector import Collector
from imagination.policy import PolicyConfig
from tests.support.linear_model import LinearModelConfig
from tests.support.point_team import PointTeamConfig
from worldmodel.types import Trajectory

SEED = 3
ENV = PointTeamConfig()
POLICY = PolicyConfig(
    hidden_dims=(8,),
    activation="relu",
    input_layer_norm=True,
    head="gaussian",
    mean="linear",
    std="free",
    std_limit=1.0,
    std_logit_init=0.0,
    log_std_init=0.0,
    log_std_min=-2.0,
    log_std_max=1.0,
)


@pytest.mark.parametrize(
    ("num_envs", "num_steps", "num_workers", "expected"),
    [
        (1, 200, 1, [(0, 1, 200)]),
        (4, 200, 2, [(0, 2, 100), (2, 2, 100)]),
        (5, 200, 3, [(0, 2, 80), (2, 2, 80), (4, 1, 40)]),
        (3, 100, 2, [(0, 2, 67), (2, 1, 34)]),  # whole episodes: at least 100 in all
    ],
)
def test_streams_and_steps_are_shared_out(
    num_envs: int, num_steps: int, num_workers: int, expected: list[tuple[int, int, int]]
) -> None:
    assert shares(num_envs, num_steps, num_workers) == expected


def test_a_worker_acts_with_the_weights_of_the_request() -> None:
    """However they change while it collects; the comparison draws from the worker's own streams of random numbers."""
    randomness = Randomness(SEED, torch.device("cpu"))
    spec = ENV.build().spec
    model = LinearModelConfig().build(spec)
    policy = POLICY.build(spec, model.actor_dim)
    explore, sample = randomness.generator("explore/0"), randomness.generator("collect/0")
    collector = Collector(ENV, 2, derive_seed(SEED, "collect"))
    here = LocalSource(collector, collecting_agents(model, policy, spec, explore, sample), "steps", 30)
    task = WorkerTask(0, ENV, LinearModelConfig(), POLICY, spec, SEED, 0, 2, "steps", 30)
    there = WorkerSource([task], lambda: {"world_model": model.state_dict(), "policy": policy.state_dict()})
    with contextlib.closing(there):
        for acting in ("random", "policy", "deterministic"):
            there.request(acting)
            expected = list(here.collect(acting))
            with torch.no_grad():
                for weight in policy.parameters():
                    weight.add_(0.3)  # as training would, in place
            got = list(there.collect("random"))  # what was requested counts
            assert list(map(described, got)) == list(map(described, expected))
            assert there.episodes == here.episodes


def described(trajectory: Trajectory) -> dict[str, Any]:
    """Everything in it, comparable to the bit."""
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in vars(trajectory).items()
    }


def test_another_number_of_workers_is_refused() -> None:
    source = WorkerSource([], lambda: {})
    with pytest.raises(ValueError, match="collect_workers = 0: the run was saved with 2, and keeps them"):
        source.load_state_dict({"num_workers": 2, "states": [None, None], "answers": None}, "policy")
