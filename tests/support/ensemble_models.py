"""Small ensembles for tests: composed by Hydra, sized by any spec."""

from __future__ import annotations

import torch

from tests.support.dima_models import compose_group
from worldmodel.contract.random_data import random_trajectory, stir
from worldmodel.ensemble.world_model import EnsembleWorldModel
from worldmodel.types import EnvSpec


def lively_ensemble(spec: EnvSpec, *overrides: str) -> EnsembleWorldModel:
    """A model in evaluation mode that looks trained: no weight is zero, and it has seen data."""
    words = ["+world_model=ensemble", "+world_model_preset/ensemble=smoke"]
    torch.manual_seed(0)
    model = compose_group(words + [f"world_model.{override}" for override in overrides], "world_model").build(spec)
    stir(model)
    model.update_statistics(random_trajectory(spec, 40, torch.Generator().manual_seed(0)))
    model.train(False)
    return model
