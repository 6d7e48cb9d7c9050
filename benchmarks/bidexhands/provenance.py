"""What figures of the Bi-DexHands port were measured on: commit, machine, versions."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

from dima.run.manifest import describe_code, describe_hardware, describe_versions

ROOT = Path(__file__).parents[2]
MATTERS = ("envs/bidexhands", "envs/errors.py", "benchmarks/bidexhands")
"""The code that figures depend on: others' unfinished work elsewhere in the checkout changes none of them."""


def describe() -> dict[str, Any]:
    """To be asked before measuring: of what is loaded, whatever is committed meanwhile.

    `code.dirty` is of the whole checkout; `code.changed` lists the files of `MATTERS` that differ from the commit.
    """
    asked = ["git", "-C", str(ROOT), "status", "--porcelain", "--", *MATTERS]
    status = subprocess.run(asked, capture_output=True, text=True, check=False)
    changed = [line[3:] for line in status.stdout.splitlines()] if status.returncode == 0 else None
    return {
        "code": {**describe_code(), "of": list(MATTERS), "changed": changed},
        "hardware": describe_hardware(torch.device("cpu")),
        "versions": describe_versions(),
    }
