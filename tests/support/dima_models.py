"""DIMA as the YAML files describe it, for tests: composed by Hydra, sized by any spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dima.world_model import DimaConfig, DimaWorldModel
from worldmodel.contract.random_data import random_trajectory, stir
from worldmodel.types import EnvSpec

CONFIGS = Path(__file__).parents[2] / "configs"


def compose_group(overrides: list[str], group: str) -> Any:
    """The config object of `group` that Hydra makes of `overrides` alone."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return instantiate(compose(overrides=overrides)[group], _convert_="object")


def dima_config(*overrides: str, preset: str = "smoke") -> DimaConfig:
    """configs/world_model/dima.yaml under `preset`; overrides are of the world model, e.g. `reveal=joint`."""
    words = ["+world_model=dima", f"+world_model_preset/dima={preset}"]
    return compose_group(words + [f"world_model.{override}" for override in overrides], "world_model")


def make_spec(state_dim: int = 5, num_agents: int = 2, action_dim: int = 3, obs_dim: int = 4) -> EnvSpec:
    """Equal agents without ids."""
    return EnvSpec("test", num_agents, state_dim, (obs_dim,) * num_agents, (action_dim,) * num_agents, 50)


def lively_dima(spec: EnvSpec, *overrides: str, preset: str = "smoke", seed: int = 0) -> DimaWorldModel:
    """A model in evaluation mode that looks trained: no weight is zero, and it has seen data."""
    torch.manual_seed(seed)
    model = dima_config(*overrides, preset=preset).build(spec)
    stir(model, seed)
    model.update_statistics(random_trajectory(spec, 40, torch.Generator().manual_seed(seed)))
    model.train(False)
    return model
