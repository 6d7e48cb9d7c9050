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

DEEPEST_MM = {"over": 2.2, "bottle-cap": 5.8, "door-open-inward": 3.2, "door-open-outward": 2.0, "pen": 1.7}
"""In 1500 steps of the prototypes."""
DEEPEST_MM |= {"catch-underarm": 2.2, "catch-abreast": 2.2, "scissors": 2.5}
"""Not measured then: Over's egg; and what was found here, 2.24 mm, for scissors that a hand presses onto the table."""


def measured(task: str, kind: str, num_steps: int) -> dict[str, Any]:
    """The script's figures of one task."""
    sys.path.insert(0, str(SCRIPT.parent))  # as where it is run
    try:
        script = importlib.import_module(SCRIPT.stem)
        return script.measure(task, kind, num_steps)  # raises at warnings and at what is not finite
    finally:
        sys.path.remove(str(SCRIPT.parent))


def assert_fine(task: str, figures: dict[str, Any]) -> None:
    assert figures["worst_penetration_mm"] <= DEEPEST_MM[task]
    assert all(phase["by"] <= 0.09 for phase in figures["limit_overshoot"].values())
    assert figures["maxuse_arena_bytes"] < MEMORY_BYTES / 8


@pytest.mark.parametrize("kind", ["fresh", "held"])
@pytest.mark.parametrize("task", EVERY)
def test_physics_is_fine_for_a_while(task: str, kind: str) -> None:
    figures = measured(task, kind, SHORT)
    assert_fine(task, figures)
    assert figures["max_abs_qvel"] < 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fresh", "held"])
@pytest.mark.parametrize("task", EVERY)
def test_physics_is_fine_for_long(task: str, kind: str) -> None:
    figures = measured(task, kind, LONG)
    assert_fine(task, figures)
    assert figures["max_abs_qvel"] < (75 if task == "pen" else 50)  # a pen, 1 cm thin, is spun at up to 55 rad/s
