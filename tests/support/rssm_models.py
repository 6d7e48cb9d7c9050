"""Small recurrent state-space models for tests: composed by Hydra, sized by any spec."""

from __future__ import annotations

import torch
from torch import nn

from tests.support.dima_models import compose_group
from worldmodel.contract.random_data import random_trajectory, stir
from worldmodel.rssm.world_model import RssmConfig, RssmWorldModel
from worldmodel.types import EnvSpec

UNEQUAL = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)
SHARP = 1e5
"""Logits times this leave one class: what is drawn no longer depends on the noise."""


def rssm_config(*overrides: str, preset: str = "smoke") -> RssmConfig:
    """configs/world_model/rssm.yaml under `preset`; overrides are of the world model, e.g. `communication=false`."""
    words = ["+world_model=rssm", f"+world_model_preset/rssm={preset}"]
    return compose_group(words + [f"world_model.{override}" for override in overrides], "world_model")


def lively_rssm(spec: EnvSpec = UNEQUAL, *overrides: str, sharp: bool = False, seed: int = 0) -> RssmWorldModel:
    """A model in evaluation mode that looks trained; `sharp`: prior and posterior are certain of one class."""
    torch.manual_seed(seed)
    overrides = (*overrides, "dynamics.cell.uniform_mix=0.0") if sharp else overrides
    model = rssm_config(*overrides).build(spec)
    stir(model, seed, scale=0.2)
    if sharp:
        with torch.no_grad():
            for head in (model.dynamics.cell.posterior_head, model.dynamics.cell.prior_head[-1]):
                assert isinstance(head, nn.Linear)
                head.weight.mul_(SHARP)
                head.bias.mul_(SHARP)
    model.update_statistics(random_trajectory(spec, 40, torch.Generator().manual_seed(seed)))
    model.train(False)
    return model
