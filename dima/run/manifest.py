"""What a run needs to be repeated and understood, beside its configuration: code, versions, machine, seeds."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from dima.run.runtime import available_cores
from worldmodel.types import EnvSpec

_PACKAGES = (
    "dima",
    "torch",
    "numpy",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
    "pettingzoo",
    "hydra-core",
    "vector-quantize-pytorch",
    "diffusers",
    "safetensors",
)


def describe_code() -> dict[str, Any]:
    """The commit this package runs from and whether files differ from it; nulls outside a git checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed inside somebody else's checkout, this file would be in their tree but not tracked there.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--untracked-files=no", ":/")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def describe_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results depend on; null where one is missing."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """The device that networks run on, the processor and how much of it is used."""
    return {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "num_threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def make_manifest(
    device: torch.device, spec: EnvSpec, choices: dict[str, str], seed: int, episode_seeds: list[int]
) -> dict[str, Any]:
    """The content of manifest.json at the start of a run; `choices` are the configuration groups' names."""
    return {
        "schema": 1,
        "command": [word for word in sys.argv if not word.startswith(("hydra.", "hydra/"))],
        "choices": choices,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "evaluation_seeds": episode_seeds,
        **describe_code(),
        "hardware": describe_hardware(device),
        "device": str(device),
        "versions": describe_versions(),
        "spec": dataclasses.asdict(spec),
        "wall_time_s": 0.0,
        "env_steps": 0,
        "is_finished": False,
        "resumes": [],
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
