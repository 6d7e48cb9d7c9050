"""How long a decision takes with GlobeDiff: the plain chain, the sampler that is used, and exported files.

    python benchmarks/inference/latency.py OUT.json MACHINE [--sizes cpu,paper] [--compiled]

All ways take turns within one process on one thread, with random weights; the times are of the processor and the wall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import Tensor, _inductor, nn

from worldmodel.inference.globediff import GlobeDiff
from worldmodel.inference.learned import LearnedInference
from worldmodel.types import EnvSpec

TASKS = {
    "HalfCheetah-2x3-partial": EnvSpec("halfcheetah", 2, 17, (11, 3), (3, 3), 1000, appends_agent_id=True),
    "Ant-4x2-partial": EnvSpec("ant", 4, 27, (12, 4, 4, 4), (2, 2, 2, 2), 1000, appends_agent_id=True),
}
"""Sizes of the tasks; what an agent observes of Ant is rounded up."""
BATCHES = (1, 64)


class Inferring(nn.Module):
    """[R,X] auxiliary observations and [R,D] noise to [R,S] states."""

    def __init__(self, law: GlobeDiff, plain: bool) -> None:
        super().__init__()
        self.law = law
        self.plain = plain

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """`plain`: the U-Net as it is trained, called at each step."""
        return plain_chain(self.law, x, noise) if self.plain else self.law.sample(x, noise)


def plain_chain(law: GlobeDiff, x: Tensor, noise: Tensor) -> Tensor:
    """What `GlobeDiff.sample` computes, by the module that is trained."""
    networks: Any = law.networks if law.averaged is None else law.averaged.module
    latent = law.config.latent_dim
    z = networks.prior(x).sample(noise[:, :latent])
    embedded = networks.denoiser.embed_condition(torch.cat([x, z], dim=1))
    chain = noise[:, latent:].unflatten(1, (-1, law.state_dim))
    s = chain[:, 0]
    for step in reversed(range(law.reverse.num_steps)):
        index = torch.full((s.shape[0],), step)
        s = law.reverse.denoise(s, networks.denoiser(s, index, embedded), step, chain[:, step + 1])
    return s


def build(spec: EnvSpec, preset: str) -> GlobeDiff:
    """Random weights of the configuration's sizes."""
    words = ["+fitting/inference@inference=globediff", f"+fitting/inference_preset/globediff={preset}"]
    with initialize_config_module("configs", version_base="1.3"):
        config = instantiate(compose(overrides=words)["inference"], _convert_="object")
    torch.manual_seed(0)
    inference: LearnedInference = config.build(spec)
    law = inference.law
    assert isinstance(law, GlobeDiff)
    return law.eval().requires_grad_(False)


def exported(law: GlobeDiff, x: Tensor, noise: Tensor, compiled: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The sampler through a file, as `dima export` writes it: for any number of rows, `compiled` or not."""
    batch = torch.export.Dim("batch", min=1, max=2**20)
    example = (x[:1].repeat(3, 1), noise[:1].repeat(3, 1))
    program = torch.export.export(Inferring(law, plain=False), example, dynamic_shapes=({0: batch}, {0: batch}))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "sampler.pt2")
        if compiled:
            return _inductor.aoti_load_package(_inductor.aoti_compile_and_package(program, package_path=path))
        torch.export.save(program, path)
        return torch.export.load(path).module()


def measure(ways: dict[str, Callable[[Tensor, Tensor], Tensor]], x: Tensor, noise: Tensor, turns: int) -> dict:
    """Milliseconds of a call: medians and the least of each way, which take turns."""
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            began, process = time.perf_counter(), time.process_time()
            way(x, noise)
            cpu[name].append(1e3 * (time.process_time() - process))
            wall[name].append(1e3 * (time.perf_counter() - began))
    return {
        name: {
            "cpu_ms": round(statistics.median(cpu[name]), 3),
            "wall_ms": round(statistics.median(wall[name]), 3),
            "least_cpu_ms": round(min(cpu[name]), 3),
            "least_wall_ms": round(min(wall[name]), 3),
        }
        for name in ways
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("machine")
    parser.add_argument("--sizes", default="cpu,paper")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--compiled", action="store_true", help="also as machine code (minutes, a C++ compiler)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": arguments.machine, "torch": torch.__version__, "threads": 1, "cells": []}
    for preset in arguments.sizes.split(","):
        for task, spec in TASKS.items():
            law = build(spec, preset)
            files: dict[str, Any] = {}
            for batch in BATCHES:
                rows = batch * spec.num_agents
                g = torch.Generator().manual_seed(0)
                first: Any = law.networks.denoiser.embed[0]
                x_dim = int(first.in_features) - law.config.latent_dim
                x, noise = torch.randn(rows, x_dim, generator=g), law.draw_noise(rows, g)
                ways: dict[str, Any] = {"plain": Inferring(law, True), "eager": Inferring(law, False)}
                for name in ("exported", "compiled") if arguments.compiled else ("exported",):
                    files[name] = files.get(name) or exported(law, x, noise, name == "compiled")
                ways |= files
                with torch.inference_mode():
                    gap = max(float((way(x, noise) - ways["plain"](x, noise)).abs().max()) for way in ways.values())
                    turns = arguments.turns if batch == 1 else max(5, arguments.turns // 5)
                    times = measure(ways, x, noise, turns)
                cell = {"preset": preset, "task": task, "environments": batch, "rows": rows, "gap": gap, "times": times}
                results["cells"].append(cell)
                print(json.dumps(cell), flush=True)
                Path(arguments.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
