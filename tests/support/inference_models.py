"""State inferencers as the YAML files describe them, for tests: composed by Hydra, sized by any spec."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.dima_models import CONFIGS, compose_group
from worldmodel.contract.random_data import random_trajectory, stir
from worldmodel.inference.learned import LearnedInference
from worldmodel.types import EnvSpec

GROUP = CONFIGS / "fitting"

KINDS = sorted(path.stem for path in (GROUP / "inference").glob("*.yaml"))


def inference_config(kind: str, *overrides: str, preset: str | None = "smoke") -> Any:
    """configs/fitting/inference/KIND.yaml under `preset` where it has it; overrides are e.g. `latent_dim=0`."""
    words = [f"+fitting/inference@inference={kind}"]
    if preset is not None and (GROUP / "inference_preset" / kind / f"{preset}.yaml").exists():
        words.append(f"+fitting/inference_preset/{kind}={preset}")
    return compose_group(words + [f"inference.{override}" for override in overrides], "inference")


def lively_inference(
    spec: EnvSpec, kind: str, *overrides: str, preset: str = "smoke", seed: int = 0
) -> LearnedInference:
    """One that looks trained, in evaluation mode: no weight is zero, and it has seen data."""
    torch.manual_seed(seed)
    inference: LearnedInference = inference_config(kind, *overrides, preset=preset).build(spec)
    stir(inference, seed)
    inference.update_statistics(random_trajectory(spec, 40, torch.Generator().manual_seed(seed)))
    inference.train(False)
    return inference
