"""Importing the library loads no simulator, tracker or plotting package: they cost seconds and may be missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = (
    "diffusers",
    "gymnasium_robotics",
    "hydra",
    "imageio",
    "matplotlib",
    "mujoco",
    "omegaconf",
    "pettingzoo",
    "scipy",
    "sklearn",
    "tensorboard",
    "transformers",
    "vector_quantize_pytorch",
    "wandb",
)
LIBRARIES = ("worldmodel", "imagination", "envs", "dima")

IMPORTED_WHEN_BUILT = {"envs.bidexhands.env", "envs.bidexhands.pettingzoo_env"}
"""Modules that subclass PettingZoo's environment; a config imports them when it builds one."""

REPORT_HEAVY = """
import importlib, sys
heavy, modules = sys.argv[1].split(","), sys.argv[2].split(",")
loaded = set()
for module in modules:
    importlib.import_module(module)
    for name in sorted(set(heavy) & set(sys.modules) - loaded):
        loaded.add(name)
        print(f"{module} loads {name}")
"""


def heavy_imports(modules: list[str], heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Which of the `heavy` packages a fresh interpreter has loaded after importing `modules` one after the other."""
    command = [sys.executable, "-c", REPORT_HEAVY, ",".join(heavy), ",".join(modules)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def modules_below(package: str) -> list[str]:
    """Dotted names of all modules of `package` that the commands in `dima/run` build on."""
    names: list[str] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[:2] != ("dima", "run"):
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def test_the_libraries_load_nothing_heavy() -> None:
    modules = [name for package in LIBRARIES for name in modules_below(package)]
    assert set(modules) >= IMPORTED_WHEN_BUILT
    modules = [name for name in modules if name not in IMPORTED_WHEN_BUILT]
    assert len(modules) > len(LIBRARIES)
    assert heavy_imports(modules) == []


@pytest.mark.parametrize("module", ["omegaconf"])
def test_a_heavy_import_is_noticed(module: str) -> None:
    assert heavy_imports(["json", module]) == [f"{module} loads {module}"]
