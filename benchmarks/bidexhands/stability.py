"""Does the physics of the Bi-DexHands port hold? Random and held full actions, and what they do to contacts and limits.

    python benchmarks/bidexhands/stability.py OUT.json [--steps 10000] [--tasks over pen] [--physics fine]
        [--kinds held] [--margin 0]

Every task is stepped with actions drawn anew at each control step (`fresh`), and with full ones, -1 or 1, each kept for
15 control steps (`held`); an episode that ends is begun again. Figures are taken after every control step. Penetration
is that of the shapes; contacts begin `margin` ahead of it, and `worst_beyond_first_contact_mm` counts from there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import provenance

from envs.bidexhands import TASKS, BiDexHandsBatch

mujoco: Any = importlib.import_module("mujoco")  # its enumerations have no types

KINDS = ("fresh", "held")
HELD_STEPS = 15
SETTLING_STEPS = 15
"""After a reset, in which joints may still be on their way back from a start outside their limits."""

DEEPEST_MM = {"over": 2.2, "bottle-cap": 5.8, "door-open-inward": 3.2, "door-open-outward": 2.0, "pen": 1.7}
"""Worst penetration in 1500 steps of the prototypes that the port was designed after; no figure for other tasks."""
FASTEST, FARTHEST_BEYOND = 50.0, 0.09
"""Largest |qvel| there, and by how much a joint passed its limit."""


class Extremes:
    """The worst of what was seen, and where."""

    def __init__(self, task: str, model: Any) -> None:
        self._task = task
        self._model = model
        limited = np.flatnonzero(model.jnt_limited)
        self._limited = limited
        self._address = model.jnt_qposadr[limited]
        self._range = model.jnt_range[limited]
        self.depths: list[float] = []
        self.deepest: tuple[float, str] = (0.0, "no contact")
        self.beyond_first_contact = 0.0
        self.fastest: tuple[float, str] = (0.0, "")
        self.overshoot: dict[str, tuple[float, str]] = {"settling": (0.0, ""), "settled": (0.0, "")}
        self.memory = 0
        self.beyond = {"penetration": 0, "qvel": 0, "limits": 0}

    def add(self, data: Any, since_reset: int) -> None:
        """Look at `data`, `since_reset` control steps into its episode."""
        depth = self._add_contacts(data)
        dof = int(np.abs(data.qvel).argmax())
        self.fastest = max(self.fastest, (float(abs(data.qvel[dof])), self._joint(self._model.dof_jntid[dof])))
        position = data.qpos[self._address]
        beyond = np.maximum(self._range[:, 0] - position, position - self._range[:, 1])
        worst = int(beyond.argmax())
        phase = "settling" if since_reset <= SETTLING_STEPS else "settled"
        self.overshoot[phase] = max(self.overshoot[phase], (float(beyond[worst]), self._joint(self._limited[worst])))
        self.memory = max(self.memory, int(data.maxuse_arena))
        self.beyond["penetration"] += 1e3 * depth > DEEPEST_MM.get(self._task, np.inf)
        self.beyond["qvel"] += bool(abs(data.qvel[dof]) > FASTEST)
        self.beyond["limits"] += bool(beyond[worst] > FARTHEST_BEYOND)

    def figures(self) -> dict[str, Any]:
        """Millimetres, radians (or metres) and bytes."""
        depths = np.array(self.depths or [0.0])
        return {
            "worst_penetration_mm": round(1e3 * self.deepest[0], 3),
            "worst_contact": self.deepest[1],
            "worst_beyond_first_contact_mm": round(1e3 * self.beyond_first_contact, 3),
            "penetration_percentiles_mm": {str(p): round(1e3 * float(np.percentile(depths, p)), 3) for p in (50, 99)},
            "max_abs_qvel": round(self.fastest[0], 2),
            "fastest_joint": self.fastest[1],
            "limit_overshoot": {name: {"by": round(by, 4), "joint": at} for name, (by, at) in self.overshoot.items()},
            "maxuse_arena_bytes": self.memory,
            "steps_beyond_the_prototypes": self.beyond,
        }

    def _add_contacts(self, data: Any) -> float:
        """The deepest penetration, metres."""
        contact = data.contact
        touching = np.flatnonzero(contact.exclude == 0)
        if not len(touching):
            return 0.0
        at = touching[int(contact.dist[touching].argmin())]
        depth = max(0.0, -float(contact.dist[at]))
        self.depths.append(depth)
        pressed = (contact.includemargin - contact.dist)[touching].max()
        self.beyond_first_contact = max(self.beyond_first_contact, float(pressed))
        if depth > self.deepest[0]:
            self.deepest = (depth, " / ".join(self._geom(geom) for geom in contact.geom[at]))
        return depth

    def _geom(self, geom: int) -> str:
        body = self._model.body(self._model.geom_bodyid[geom]).name
        return self._model.geom(geom).name or f"{body} ({mujoco.mjtGeom(self._model.geom_type[geom]).name})"

    def _joint(self, joint: int) -> str:
        return self._model.joint(int(joint)).name


def actions(kind: str, num_steps: int, action_size: int, seed: int) -> np.ndarray:
    """[T,2,A] actions of one `kind`."""
    rng = np.random.default_rng(seed)
    if kind == "fresh":
        return rng.uniform(-1.0, 1.0, (num_steps, 2, action_size))
    return np.repeat(rng.choice([-1.0, 1.0], (-(-num_steps // HELD_STEPS), 2, action_size)), HELD_STEPS, axis=0)[
        :num_steps
    ]


def measure(
    task: str, kind: str, num_steps: int, seed: int = 0, physics: Any = "fine", margin: float | None = None
) -> dict[str, Any]:
    """Step `task`; raises where a warning of MuJoCo or a value that is not finite ends it.

    `margin`: how far ahead of touching all contacts begin, in metres; None: as the port has it.
    """
    batch = BiDexHandsBatch(task, physics=physics)
    if margin is not None:
        batch.simulation.model.geom_margin[:] = batch.simulation.model.pair_margin[:] = margin
    data = batch.simulation.world(0)
    extremes = Extremes(task, batch.simulation.model)
    episodes = failed = reached = 0
    since_reset, is_open = 0, False
    begun = time.process_time()
    for action in actions(kind, num_steps, batch.action_size, seed):
        if not is_open:
            batch.reset([0], [seed + episodes])
            episodes, since_reset, is_open = episodes + 1, 0, True
        result = batch.step([0], action[None])
        since_reset += 1
        extremes.add(data, since_reset)
        values = (data.qpos, data.qvel, data.qacc, result.state, result.reward)
        if not all(np.isfinite(value).all() for value in values):
            raise FloatingPointError(f"{task}, {kind}: a value is not finite at {data.time:.2f} s")
        if result.terminated[0] or result.truncated[0]:
            is_open = False
            failed += int(result.terminated[0])
            reached += int(result.success[0])
    cpu_s = time.process_time() - begun
    counts = {"steps": num_steps, "episodes": episodes, "failed": failed, "succeeded": reached, "warnings": 0}
    return {**counts, **extremes.figures(), "steps_per_cpu_s": round(num_steps / cpu_s)}


def main() -> None:
    """Measure, print a line for each, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--physics", default="fine", choices=["fine", "fast"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--margin", type=float, default=None, help="metres; instead of the port's own")
    asked = parser.parse_args()
    measured_on = provenance.describe()
    figures: dict[str, Any] = {}
    for task in asked.tasks:
        for kind in asked.kinds:
            row = measure(task, kind, asked.steps, physics=asked.physics, margin=asked.margin)
            figures.setdefault(task, {})[kind] = row
            sys.stdout.write(f"{task:18} {kind:6} {json.dumps(row)}\n")
            sys.stdout.flush()
    record = {
        "schema": 1,
        "command": f"python benchmarks/bidexhands/stability.py {' '.join(sys.argv[1:])}",
        "physics": asked.physics,
        "margin_m": asked.margin,
        **measured_on,
        "figures": figures,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
