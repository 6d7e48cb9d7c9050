"""Real episodes of a toy system, and a small DIMA denoiser fitted to them: what both learning tests share."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from dima.run.optimize import PartOptimizer
from dima.world_model import DimaWorldModel
from envs.collector import Collector
from envs.random_agent import RandomAgent
from envs.toy.system import SystemEnv
from tests.support.dima_models import compose_group, dima_config
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import Segment

ENV_STEPS = 20_000
SMALL = ("target=state", "sigma_offset_noise=0.0", "denoiser.channels=[32,32]", "denoiser.cond_dim=64")
"""A sixth of the cpu preset's network. Without offset noise, which would hide the system's own."""
PLAN = ((1000, 1e-3), (500, 1e-4))
"""Updates and learning rates, batches of 128: about half a minute on one core."""


@dataclasses.dataclass
class Fitted:
    """A system, what was seen of it, and the model that was fitted to that."""

    env: SystemEnv
    replay: Replay
    model: DimaWorldModel
    overrides: tuple[str, ...]

    def with_sampler(self, *overrides: str) -> DimaWorldModel:
        """The same weights under another order, solver or number of noise levels."""
        model = _build(self.env, *self.overrides, *overrides)
        model.load_state_dict(self.model.state_dict())
        return model

    def contexts(self, batch: int, seed: int) -> tuple[Segment, Tensor]:
        """Contexts [B,K] from replay, and uniform joint actions [B,N,A]."""
        g = torch.Generator().manual_seed(seed)
        spec = self.env.spec
        action = 2 * torch.rand(batch, spec.num_agents, spec.action_dim, generator=g) - 1
        return self.replay.sample_contexts(batch, self.model.context_length, g), action


def _build(env: SystemEnv, *overrides: str) -> DimaWorldModel:
    model = dima_config(*SMALL, *overrides, preset="cpu").build(env.spec)
    model.train(False)
    return model


def fit_toy(toy: str, seed: int, *overrides: str) -> Fitted:
    """Play `toy` with random actions and fit the denoiser to it; the other parts stay as they were initialised."""
    env_config = compose_group([f"+env=toy/{toy}"], "env")
    env = env_config.build()
    collector = Collector(env_config, 8, seed)
    replay = ReplayConfig(capacity=100_000, recency="uniform").build(env.spec, 8)
    torch.manual_seed(seed)
    model = _build(env, *overrides)
    agent = RandomAgent(env.spec, torch.Generator().manual_seed(seed))
    for trajectory in collector.collect(agent, num_steps=ENV_STEPS):
        replay.append(trajectory)
        model.update_statistics(trajectory)

    part, g = model.denoiser, torch.Generator().manual_seed(seed)
    settings = part.optim
    for updates, learning_rate in PLAN:
        part.optim = dataclasses.replace(settings, learning_rate=learning_rate, warmup_updates=0)
        optimizer = PartOptimizer("denoiser", part)
        for _ in range(updates):
            segment = replay.sample(settings.batch_size, part.segment_length, burn_in=part.burn_in, generator=g)
            optimizer.update(segment, g)
        optimizer.require_finite()
    return Fitted(env, replay, model, overrides)


def draw_next_state(model: DimaWorldModel, context: Segment, action: Tensor, seed: int) -> Tensor:
    """Imagined next states [B,S] in the environment's units, in double precision."""
    g = torch.Generator().manual_seed(seed)
    _, prediction = model.step(model.start(context, generator=g), action, generator=g)
    assert prediction.state is not None
    return prediction.state.double()
