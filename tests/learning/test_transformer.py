"""The transformer world model fitted to a linear-Gaussian team: how far from the truth one imagined step lands."""

from __future__ import annotations

import pytest
import torch

from dima.run.optimize import LearningRateDecay, PartOptimizer
from envs.collector import Collector
from envs.random_agent import RandomAgent
from tests.support.dima_models import compose_group
from tests.support.transformer_models import transformer_config
from worldmodel.replay import ReplayConfig

pytestmark = pytest.mark.slow

SMALL = (
    "tokenizer.num_tokens=2",
    "tokenizer.levels=[8,8]",
    "tokenizer.optim.learning_rate=3e-3",
    "tokenizer.optim.batch_size=64",
    "dynamics.token_distribution=channels",
    "dynamics.token_embedding=code",
    "dynamics.embedding_dropout=0",
    "dynamics.attention_dropout=0",
    "dynamics.residual_dropout=0",
    "dynamics.aggregation_dropout=0",
    "dynamics.optim.learning_rate=3e-3",
    "dynamics.optim.batch_size=16",
    "state.optim.learning_rate=3e-3",
    "state.optim.batch_size=64",
)
UPDATES = {"tokenizer": 400, "dynamics": 600, "state": 300}


def test_one_step_lands_near_the_law() -> None:
    env_config = compose_group(["+env=toy/linear"], "env")
    collector = Collector(env_config, 4, 0)
    spec = collector.spec
    agent = RandomAgent(spec, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = transformer_config(*SMALL).build(spec)
    replay = ReplayConfig(capacity=10_000, recency="uniform").build(spec, 4)
    for trajectory in collector.collect(agent, num_steps=4000):
        replay.append(trajectory)
        model.update_statistics(trajectory)
    g = torch.Generator().manual_seed(0)
    for name, part in model.parts().items():
        updates = UPDATES[name]
        optimizer = PartOptimizer(name, part, LearningRateDecay(0.1, 0.5, updates))
        for _ in range(updates):
            optimizer.update(replay.sample(part.optim.batch_size, part.segment_length, generator=g), g)
        optimizer.require_finite()
    model.train(False)

    fresh = ReplayConfig(capacity=10_000, recency="uniform").build(spec, 4)
    for trajectory in Collector(env_config, 4, 1).collect(agent, num_steps=1000):
        fresh.append(trajectory)
    segment = fresh.sample(300, 1, generator=g)
    start = model.start(segment.steps(0, 0), generator=g)
    draws = [model.step(start, segment.action[:, 0], generator=g)[1] for _ in range(16)]
    state = torch.stack([draw.state for draw in draws if draw.state is not None]).mean(dim=0)
    reward = torch.stack([draw.reward for draw in draws]).mean(dim=0)

    # Knowing the law itself leaves the noise as an error of the state, and what it does to the reward.
    system, action = env_config.build().system, segment.action[:, 0].double().numpy()
    lawful = system.predictive_mean(segment.state[:, 0].double().numpy(), action)
    lawful_reward = torch.as_tensor(system.reward(lawful, action)).float()
    error, standing_still, least = (
        float((guess - segment.state[:, 1]).abs().mean())
        for guess in (state, segment.state[:, 0], torch.as_tensor(lawful).float())
    )
    correlation, best = (
        float(torch.corrcoef(torch.stack([guess, segment.reward[:, 0]]))[0, 1]) for guess in (reward, lawful_reward)
    )
    assert error < 0.5 * standing_still
    assert error < 1.4 * least
    assert correlation > 0.8 * best
