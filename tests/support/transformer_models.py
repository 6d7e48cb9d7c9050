"""The transformer world model as the YAML files describe it, for tests: composed by Hydra, sized by any spec."""

from __future__ import annotations

import torch

from tests.support.dima_models import compose_group
from worldmodel.contract.random_data import random_trajectory, stir
from worldmodel.transformer.world_model import TransformerConfig, TransformerWorldModel
from worldmodel.types import EnvSpec

UNEQUAL = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)
"""Three agents of different sizes, with ids."""


def transformer_config(*overrides: str, preset: str = "smoke") -> TransformerConfig:
    """configs/world_model/transformer.yaml under `preset`; overrides are of the world model."""
    words = ["+world_model=transformer", f"+world_model_preset/transformer={preset}"]
    return compose_group(words + [f"world_model.{override}" for override in overrides], "world_model")


def lively_transformer(*overrides: str, spec: EnvSpec = UNEQUAL, scale: float = 0.2) -> TransformerWorldModel:
    """A model in evaluation mode that looks trained: far from its small initial weights, and it has seen data."""
    torch.manual_seed(0)
    model = transformer_config(*overrides).build(spec)
    stir(model, scale=scale)
    model.update_statistics(random_trajectory(spec, 40, torch.Generator().manual_seed(1)))
    model.train(False)
    return model
