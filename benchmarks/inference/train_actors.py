"""Trains the policies of the control study, one run after another, the most telling first; what is done is skipped.

    python benchmarks/inference/train_actors.py --work DIR [--task mamujoco/halfcheetah-2x3-partial] [--set KEY=VALUE]
        [--seeds 0 1 2] [--env-steps 8000] [--only state obs ..]

All learn in imagination on one partially observable task and differ in nothing but what the actors are fed with,
and `obs-large` in the actors' size: about as many parameters as the actor on states and GlobeDiff together are trained.
Started again, a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ACTORS: dict[str, list[str]] = {
    "state": ["policy.policy.input=state"],
    "obs": [],
    "obs-large": ["policy.policy.hidden_dims=[512,512,512]"],
    "obs+state": ["policy.policy.input=obs+state"],
    "joint": ["policy.policy.input=joint"],
}
"""What the command line says of each kind of actor."""


def main() -> int:
    """Train every cell: 0 when all are done, 1 when one failed."""
    asked = _parse()
    cells = [(actor, seed) for seed in asked.seeds for actor in asked.only]
    failed = [f"{actor}-{seed}" for actor, seed in cells if not _train(asked, actor, seed)]
    print(f"{len(cells) - len(failed)} of {len(cells)} runs are there; failed: {' '.join(failed) or 'none'}")
    return 1 if failed else 0


def _train(asked: argparse.Namespace, actor: str, seed: int) -> bool:
    folder = asked.work / f"{actor}-seed{seed}"
    if (folder / "manifest.json").exists():
        words = [f"resume={folder}", f"env_steps={asked.env_steps}"]
    else:
        words = [f"env={asked.task}", *asked.set, "preset=cpu", f"env_steps={asked.env_steps}", f"seed={seed}"]
        words += [*ACTORS[actor], "engine.parallel_parts=false", "device=cpu", f"out={folder}"]
    with (asked.work / f"{folder.name}.log").open("a") as log:
        command = [sys.executable, "-m", "dima.run.cli", "train", *words]
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode == 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the runs go")
    parser.add_argument("--task", default="mamujoco/halfcheetah-2x3-partial", help="the environment")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more for dima train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--env-steps", type=int, default=8000)
    parser.add_argument("--only", nargs="+", choices=list(ACTORS), default=list(ACTORS), metavar="ACTOR")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    return asked


if __name__ == "__main__":
    sys.exit(main())
