"""Imports point down: the commands know everything, the contract knows nothing, siblings do not know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS: dict[str, int] = {
    "dima.run": 4,
    "configs": 4,
    "dima": 3,
    "imagination": 3,
    "envs": 3,
    "worldmodel.transformer": 3,
    "worldmodel.rssm": 3,
    "worldmodel.ensemble": 3,
    "worldmodel.inference": 3,
    "worldmodel": 2,
    "worldmodel.types": 1,
    "worldmodel.protocol": 1,
    "worldmodel.shapes": 1,
    "worldmodel.config": 1,
}
"""Level of each package or module; the longest prefix counts. On level 3 only the own package may be imported."""

PACKAGES = ("worldmodel", "dima", "imagination", "envs")

ONLY_IN: dict[str, str] = {
    "hydra": "dima.run",
    "omegaconf": "dima.run",
    "wandb": "dima.run",
    "tensorboard": "dima.run",
    "torch.utils.tensorboard": "dima.run",
    "torch.distributed": "dima.run",
    "mujoco": "envs",
    "gymnasium": "envs",
    "gymnasium_robotics": "envs",
    "pettingzoo": "envs",
}
"""Third-party packages that one part of the project keeps to itself."""


def _longest_prefix(name: str, table: Mapping[str, object]) -> str | None:
    fitting = [prefix for prefix in table if name == prefix or name.startswith(prefix + ".")]
    return max(fitting, key=len, default=None)


def _imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything imported anywhere in the file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join(parents[: len(parents) - node.level + 1] + ([base] if base else []))
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _why_forbidden(module: str, imported: str) -> str | None:
    """The rule that `module` breaks by importing `imported`, or None."""
    home = _longest_prefix(module, LAYERS)
    assert home is not None, f"{module} belongs to no layer"
    owner = _longest_prefix(imported, ONLY_IN)
    if owner is not None and not module.startswith(ONLY_IN[owner]):
        return f"only {ONLY_IN[owner]} may import {owner}"
    target = _longest_prefix(imported, LAYERS)
    if target is None or target == home:
        return None
    if LAYERS[target] > LAYERS[home]:
        return f"upward: level {LAYERS[home]} imports level {LAYERS[target]}"
    if LAYERS[target] == LAYERS[home] == 3:
        return f"sideways: {home} and {target} do not know each other"
    return None


def violations(root: Path) -> list[str]:
    """Every forbidden import below `root`, as `file:line: what (why)`."""
    found: list[str] = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            is_package = path.name == "__init__.py"
            module = ".".join((relative.parent if is_package else relative.with_suffix("")).parts)
            for line, imported in _imported(ast.parse(path.read_text()), module, is_package):
                why = _why_forbidden(module, imported)
                if why is not None:
                    found.append(f"{relative}:{line}: {imported} ({why})")
    return found


def test_imports_point_down() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("worldmodel/replay.py", "from imagination.rollout import imagine", "upward"),
        ("worldmodel/types.py", "from worldmodel.replay import Replay", "upward"),
        ("worldmodel/types.py", "from worldmodel import replay", "upward"),
        ("worldmodel/shapes.py", "from . import networks", "upward"),
        ("worldmodel/replay.py", "import worldmodel.rssm.model", "upward"),
        ("imagination/rollout.py", "from dima.denoiser import Denoiser", "sideways"),
        ("worldmodel/rssm/model.py", "from worldmodel.transformer import blocks", "sideways"),
        ("envs/toy.py", "def f():\n    from dima.run import trainer", "upward"),
        ("dima/denoiser.py", "from .run.trainer import train", "upward"),
        ("dima/denoiser.py", "import hydra", "only dima.run"),
        ("imagination/mappo.py", "def f():\n    import torch.distributed", "only dima.run"),
        ("dima/run/play.py", "import mujoco", "only envs"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, line: str, reason: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")

    found = violations(tmp_path)

    assert len(found) == 1
    assert found[0].startswith(file)
    assert reason in found[0]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("dima/run/trainer.py", "from imagination.rollout import imagine\nimport hydra\nimport envs.toy"),
        ("dima/denoiser.py", "from worldmodel.networks import mlp\nfrom dima.schedule import karras_sigmas"),
        ("dima/decoder.py", "from . import schedule"),
        ("worldmodel/replay.py", "from worldmodel.types import Segment\nfrom worldmodel import networks"),
        ("worldmodel/rssm/model.py", "from worldmodel.rssm.cell import Cell"),
        ("envs/mamujoco.py", "def f():\n    import mujoco"),
    ],
)
def test_an_allowed_import_is_left_alone(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")

    assert violations(tmp_path) == []
