"""The recurrent state-space model on a linear-Gaussian team, whose law is known: how much of it is learned."""

from __future__ import annotations

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
UPDATES = 1000
SAMPLES = 16


def fit(*overrides: str) -> tuple[LinearSystem, Replay, RssmWorldModel]:
    """The cpu preset after a short fit to random play: about a minute on one core."""
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


@pytest.mark.parametrize("outcome_from", ["transition", "successor"])
def test_one_step_ahead_it_knows_far_more_than_that_things_stay_as_they_are(outcome_from: str) -> None:
    system, replay, model = fit(f"dynamics.outcome_from={outcome_from}")
    k = model.context_length
    segment = replay.sample(512, k + 1, burn_in=k, generator=torch.Generator().manual_seed(2))
    segment = segment[segment.valid[:, -1]]
    context, action = segment.steps(0, k), segment.action[:, k]

    predicted = predict_mean(model, context, action)

    now, following = segment.state[:, k], segment.state[:, k + 1]
    truth = torch.as_tensor(system.predictive_mean(now.numpy(), action.numpy())).float()
    assert predicted.state is not None
    shown = {
        "state": (rms(predicted.state - truth), rms(now - truth)),
        "obs": (
            rms(predicted.obs - torch.as_tensor(system.observe(truth.numpy())).float()),
            rms(segment.obs[:, k] - torch.as_tensor(system.observe(truth.numpy())).float()),
        ),
        "reward": (rms(predicted.reward - segment.reward[:, k]), float(segment.reward[:, k].std())),
    }
    noise = rms(following - truth)
    print(shown, noise)
