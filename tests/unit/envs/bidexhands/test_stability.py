"""Physics stays in bounds under random and under held full actions; what the benchmark script measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from envs.bidexhands.scene import MEMORY_BYTES
from tests.support.bidexhands import EVERY

pytestmark = pytest.mark.mujoco

SCRIPT = Path(__file__).parents[4] / "benchmarks" / "bidexhands" / "stability.py"
SHORT, LONG = 300, 10_000

DEEPEST_MM = {"over": 2.2, "bottle-cap": 8.7, "door-open-inward": 3.2, "door-open-outward": 2.0, "pen": 1.7}
"""In 1500 steps of the prototypes."""
FOR_OTHER_TASKS_MM = 2.2
"""Not measured then; they have Over's egg and Pen's table."""
RARE = 2e-3
"""Share of 10 000 steps that may pass those bounds, as the prototypes' 1500 did not: benchmarks/results/bidexhands.

Of held actions 0.11 % do in Pen and up to 0.06 % at the doors, where the 833 N that drive a hand on then rest on one
finger that is caught at a panel's edge: for a control step it is bent by up to 0.5 rad beyond its limit, or pressed
10 mm into its neighbour. Five times as many solver iterations change nothing in that; twice as many substeps with
contacts twice as stiff leave 4 mm at the inward door, and bend it as far.
"""


WORST_MM, WORST_QVEL, WORST_OVERSHOOT = 15.0, 200.0, 0.75
"""What no step may pass: half as much again as the worst that was measured, 10.4 mm, 132 rad/s and 0.48 rad."""


def measured(task: str, kind: str, num_steps: int) -> dict[str, Any]:
    """The script's figures of one task."""
    sys.path.insert(0, str(SCRIPT.parent))  # as where it is run
    try:
        return importlib.import_module(SCRIPT.stem).measure(
            task, kind, num_steps
        )  # raises at warnings, or if not finite
    finally:
        sys.path.remove(str(SCRIPT.parent))


@pytest.mark.parametrize("kind", ["fresh", "held"])
@pytest.mark.parametrize("task", EVERY)
def test_physics_is_fine_for_a_while(task: str, kind: str) -> None:
    figures = measured(task, kind, SHORT)
    assert figures["worst_penetration_mm"] <= DEEPEST_MM.get(task, FOR_OTHER_TASKS_MM)
    assert figures["max_abs_qvel"] < 50
    assert all(phase["by"] <= 0.09 for phase in figures["limit_overshoot"].values())
    assert figures["maxuse_arena_bytes"] < MEMORY_BYTES / 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fresh", "held"])
@pytest.mark.parametrize("task", EVERY)
def test_physics_is_fine_for_long(task: str, kind: str) -> None:
    figures = measured(task, kind, LONG)
    assert figures["penetration_percentiles_mm"]["99"] <= DEEPEST_MM.get(task, FOR_OTHER_TASKS_MM)
    assert figures["worst_penetration_mm"] <= WORST_MM
    assert figures["max_abs_qvel"] <= WORST_QVEL
    assert all(phase["by"] <= WORST_OVERSHOOT for phase in figures["limit_overshoot"].values())
    beyond = figures["steps_beyond_the_prototypes"]
    assert max(beyond.values()) <= RARE * LONG
    if kind == "fresh":
        assert (beyond["qvel"], beyond["limits"]) == (0, 0)
    assert figures["maxuse_arena_bytes"] < MEMORY_BYTES / 8
