"""The recurrent state-space model on a linear-Gaussian team, whose law is known: how much of it is learned."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from dima.run.optimize import PartOptimizer
from envs.collector import Collector
from envs.random_agent import RandomAgent
from envs.toy.linear import LinearSystem
from envs.toy.system import SystemEnv
from tests.support.dima_models import compose_group
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.rssm.world_model import RssmWorldModel
from worldmodel.types import Prediction, Segment

pytestmark = pytest.mark.slow

ENV_STEPS = 10_000
UPDATES = 500
SAMPLES = 16


def fit(*overrides: str) -> tuple[LinearSystem, Replay, RssmWorldModel]:
    """The cpu preset after a short fit to random play: about half a minute on one core."""
    env_config = compose_group(["+env=toy/linear"], "env")
    env: SystemEnv = env_config.build()
    torch.manual_seed(0)
    words = ["+world_model=rssm", "+world_model_preset/rssm=cpu", *(f"world_model.{word}" for word in overrides)]
    model: RssmWorldModel = compose_group(words, "world_model").build(env.spec)
    replay = ReplayConfig(capacity=20_000, recency="uniform").build(env.spec, 8)
    agent = RandomAgent(env.spec, torch.Generator().manual_seed(0))
    for trajectory in Collector(env_config, 8, 0).collect(agent, num_steps=ENV_STEPS):
        replay.append(trajectory)
        model.update_statistics(trajectory)
    part, g = model.dynamics, torch.Generator().manual_seed(0)
    optimizer = PartOptimizer("dynamics", part)
    for _ in range(UPDATES):
        optimizer.update(replay.sample(part.optim.batch_size, part.segment_length, generator=g), g)
    optimizer.require_finite()
    model.train(False)
    assert isinstance(env.system, LinearSystem)
    return env.system, replay, model


def predict_mean(model: RssmWorldModel, context: Segment, action: Tensor) -> Prediction:
    """The mean of many sampled steps from the same contexts."""
    g = torch.Generator().manual_seed(1)
    repeated = context.map(lambda tensor: tensor.repeat_interleave(SAMPLES, dim=0))
    _, sampled = model.step(model.start(repeated, generator=g), action.repeat_interleave(SAMPLES, dim=0), generator=g)
    return sampled.map(lambda tensor: tensor.unflatten(0, (-1, SAMPLES)).mean(dim=1))


def rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


@dataclasses.dataclass(frozen=True)
class Errors:
    """Root mean squares of one step ahead; of means, against what the law expects, noise left out."""

    state: float
    obs: float
    reward: float


def measure(*overrides: str) -> tuple[Errors, Errors]:
    """What a fitted model errs by, and what it errs by who says that state and observation stay and reward is usual."""
    system, replay, model = fit(*overrides)
    k = model.context_length
    segment = replay.sample(512, k + 1, burn_in=k, generator=torch.Generator().manual_seed(2))
    segment = segment[segment.valid[:, -1]]
    action, now, reward = segment.action[:, k], segment.state[:, k], segment.reward[:, k]
    predicted = predict_mean(model, segment.steps(0, k), action)
    assert predicted.state is not None
    mean = system.predictive_mean(now.numpy(), action.numpy())
    state, obs = torch.as_tensor(mean).float(), torch.as_tensor(system.observe(mean)).float()
    learned = Errors(rms(predicted.state - state), rms(predicted.obs - obs), rms(predicted.reward - reward))
    return learned, Errors(rms(now - state), rms(segment.obs[:, k] - obs), rms(reward - reward.mean()))


@pytest.fixture(scope="module")
def with_messages() -> tuple[Errors, Errors]:
    return measure()


def test_one_step_ahead_it_knows_far_more_than_that_things_stay(with_messages: tuple[Errors, Errors]) -> None:
    learned, persistence = with_messages

    assert learned.state < 0.25 * persistence.state
    assert learned.obs < 0.25 * persistence.obs
    assert learned.reward < 0.8 * persistence.reward, "of which more than half is noise"
