"""How many parameters each part of DIMA has, and where they sit; a Markdown table for a task and presets.

python benchmarks/parameters.py mamujoco/halfcheetah-2x3 mamujoco/ant-4x2 > benchmarks/results/parameters.md
"""

from __future__ import annotations

import sys

import hydra
import torch
from hydra.utils import instantiate
from torch import nn

from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec

PRESETS = ("paper", "published", "cpu")

READING = """\
`paper` and `published` differ where the paper is silent or the code departs from it. The paper says nothing of an
action encoder: `paper` uses the small one (a linear layer an agent, a masked sum, two layers), `published` the code's
Perceiver of 11.87 M parameters, five sixths of its denoiser. The U-Net (2 076 992) is the same. The reward model's
termination head has two logits with the paper's cross-entropy and one with the code's Bernoulli loss. The paper's
decoder is an FSQ autoencoder with a hidden width of 512, the code's a learned codebook with 256. State sizes enter only
through first and last layers. Codebooks follow moving averages; they are buffers, not parameters.
"""


def build(task: str, preset: str) -> tuple[EnvSpec, WorldModel]:
    """The world model that `dima train env=TASK preset=PRESET` trains."""
    with hydra.initialize_config_module("configs", version_base="1.3"):
        config = hydra.compose("train", [f"env={task}", f"preset={preset}"])
    env = instantiate(config.env, _convert_="object").build()
    try:
        torch.manual_seed(0)
        return env.spec, instantiate(config.world_model, _convert_="object").build(env.spec)
    finally:
        env.close()


def count(module: nn.Module | None) -> int:
    """Trainable numbers in `module`; 0 where a preset does without it."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def rows(task: str) -> list[str]:
    """Table rows for one task: totals by part, and below each part what it is made of."""
    models = [build(task, preset) for preset in PRESETS]
    spec = models[0][0]
    sizes = f"S={spec.state_dim}, N={spec.num_agents}, A={spec.action_dim}, O={spec.obs_dim}"
    lines = [f"## {task} ({sizes})", "", f"| | {' | '.join(PRESETS)} |", f"|---|{'---:|' * len(PRESETS)}"]
    parts = [model.parts() for _, model in models]
    for name in parts[0]:
        lines.append(_row(f"**{name}**", [count(part[name]) for part in parts], bold=True))
        children = dict.fromkeys(child for part in parts for child, _ in part[name].named_children())
        for child in children:
            numbers = [count(getattr(part[name], child, None)) for part in parts]
            if any(numbers):
                lines.append(_row(f"{name}.{child}", numbers))
        loose = [sum(p.numel() for _, p in part[name].named_parameters(recurse=False)) for part in parts]
        if any(loose):
            lines.append(_row(f"{name}, own tensors", loose))
    return [*lines, ""]


def _row(label: str, numbers: list[int], bold: bool = False) -> str:
    cells = [f"**{number:,}**" if bold else f"{number:,}" for number in numbers]
    return f"| {label} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables for the tasks on the command line."""
    tasks = sys.argv[1:]
    if not tasks:
        raise SystemExit(__doc__)
    tables = [line for task in tasks for line in rows(task)]
    sys.stdout.write("\n".join(["# Parameters by part and preset", "", READING, *tables]))


if __name__ == "__main__":
    main()
