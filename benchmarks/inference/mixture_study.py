"""Sampling a known Gaussian mixture: which options of GlobeDiff find every mode, with its weight, and stay on it.

    python benchmarks/inference/mixture_study.py RESULTS.jsonl [--only REGEX] [--list]

One line a cell is added as it comes; cells that are there are skipped. Data are drawn afresh from the law of
`envs.toy.mixture`: nothing can be learned by heart. What is measured, on 20 000 observations with one sample each:
`ratio`, the mean squared distance to the nearest mode's centre, divided by the perfect sampler's; `weight_error`, the
largest error of a mode's share, in points; `between`, the share of samples farther from every centre than 999 in 1 000
of the perfect sampler's are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixture_cells import CELLS, Cell

from dima.run.optimize import LearningRateDecay, PartOptimizer
from envs.toy.mixture import MixtureConfig, MixtureSystem
from worldmodel.config import OptimConfig
from worldmodel.inference.auxiliary import AuxiliaryConfig
from worldmodel.inference.globediff import GlobeDiffConfig
from worldmodel.inference.regression import MlpConfig, VaeConfig
from worldmodel.types import Segment

MEASURED = 20_000
VAE_KL_WEIGHT = 0.08
"""As configs/fitting/inference/vae.yaml."""


def main() -> int:
    """Measure every cell that is not there."""
    asked = _parse()
    lines = asked.results.read_text().splitlines() if asked.results.exists() else []
    done = {json.loads(line)["name"] for line in lines}
    cells = [cell for cell in CELLS if cell.name not in done and re.search(asked.only, cell.name)]
    if asked.list:
        print("\n".join(cell.name for cell in cells))
        return 0
    torch.set_num_threads(1)
    for cell in cells:
        begun = time.process_time()
        record = {"name": cell.name, **dataclasses.asdict(cell), **measure(cell)}
        record["cpu_seconds"] = round(time.process_time() - begun, 1)
        with asked.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(cell.name, {k: record[k] for k in ("ratio", "weight_error", "between", "cpu_seconds")}, flush=True)
    return 0


def toy(cell: Cell) -> MixtureConfig:
    """The environment of a cell."""
    return MixtureConfig(
        num_agents=2,
        state_dim=cell.state_dim,
        num_modes=cell.num_modes,
        separation=cell.separation,
        weights=None,
        std=0.1,
        context_size=2,
        context_gain=0.5,
        layout_seed=0,
        episode_steps=50,
    )


def inference_config(cell: Cell) -> Any:
    """What a cell learns with: sizes of the CPU preset."""
    auxiliary = AuxiliaryConfig("own", 0, 0.01)
    optim = OptimConfig(cell.learning_rate, 1e-4, 10.0, cell.batch_size)
    if cell.kind == "mlp":
        return MlpConfig(auxiliary, 256, 3, optim)
    if cell.kind == "vae":
        return VaeConfig(auxiliary, 16, 256, 2, VAE_KL_WEIGHT, optim)
    return GlobeDiffConfig(
        auxiliary,
        cell.num_denoising_steps,
        cell.schedule,
        cell.sampling_noise,
        5.0,
        cell.latent_dim,
        256,
        cell.latent_layers,
        cell.kl_weight,
        cell.channels,
        cell.num_blocks,
        64,
        8,
        cell.ema_decay,
        optim,
    )


def measure(cell: Cell) -> dict[str, Any]:
    """Fit one inferencer and compare its samples with the law."""
    torch.manual_seed(cell.seed)
    env = toy(cell)
    system = MixtureSystem(env)
    model = inference_config(cell).build(system.spec)
    rng, generator = np.random.default_rng(cell.seed), torch.Generator().manual_seed(cell.seed)
    _learn_statistics(model, draw(system, rng, 20_000))
    decay = LearningRateDecay(0.02, 0.3).over(cell.updates)
    optimizer = PartOptimizer("inference", model, decay)
    model.train(True)
    for _ in range(cell.updates):
        optimizer.update(draw(system, rng, cell.batch_size), generator)
    optimizer.require_finite()
    model.train(False)
    return compare(system, model, draw(system, np.random.default_rng(12345), MEASURED), generator)


def compare(system: MixtureSystem, model: Any, data: Segment, generator: torch.Generator) -> dict[str, Any]:
    """One sample for each observation, against the law."""
    agent = torch.zeros(MEASURED, dtype=torch.long)
    sampled = model.infer(data.obs[:, :1], num_samples=1, generator=generator, agent=agent)[0].numpy()
    law = system.law_of_obs(data.obs[:, 0].numpy())
    distance = ((sampled[None] - law.mean) ** 2).sum(-1)  # [J,B]
    nearest = distance.min(0)
    perfect = system.spec.state_dim * law.std**2
    share = np.bincount(distance.argmin(0), minlength=len(law.weight)) / MEASURED
    true = data.state[:, 0].numpy()
    border = np.quantile(((true[None] - law.mean) ** 2).sum(-1).min(0), 0.999)
    return {
        "ratio": float(nearest.mean() / perfect),
        "ratio_median": float(np.median(nearest) / perfect),
        "weight_error": float(100 * np.abs(share - law.weight).max()),
        "between": float((nearest > border).mean()),
        "shares": share.round(4).tolist(),
        "weights": law.weight.round(4).tolist(),
    }


def draw(system: MixtureSystem, rng: np.random.Generator, rows: int) -> Segment:
    """Segments of one transition each, whose first state is drawn from the law."""
    spec = system.spec
    context = rng.uniform(-1.0, 1.0, (rows, spec.obs_sizes[0])).astype(np.float32)
    law = system.law(context)
    mode = rng.choice(len(law.weight), size=rows, p=law.weight)
    state = law.mean[mode, np.arange(rows)] + law.std * rng.standard_normal((rows, spec.state_dim))
    obs, states = (
        torch.from_numpy(given.astype(np.float32))[:, None].expand(-1, 2, *given.shape[1:])
        for given in (system.observe(context), state)
    )
    return Segment(
        obs=obs,
        state=states,
        action=torch.zeros(rows, 1, spec.num_agents, 1),
        reward=torch.zeros(rows, 1),
        terminated=torch.zeros(rows, 1, dtype=torch.bool),
        valid=torch.ones(rows, 1, dtype=torch.bool),
    )


def _learn_statistics(model: Any, data: Segment) -> None:
    model.state_norm.update(data.state[:, 0])
    model.observation.norm.update(data.obs[:, 0].flatten(1))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", default="", help="cells whose name matches this regular expression")
    parser.add_argument("--list", action="store_true", help="name the cells that are to do")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
