"""The page on world models of one's own: its Python is the example's, and its commands run, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from worldmodel.contract.checks import CHECKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plug_in_a_world_model.md").read_text()
EXAMPLE = (ROOT / "examples" / "custom_world_model" / "linear.py").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.strip().splitlines()[0][:40])
def test_python_on_the_page_is_the_examples(block: str) -> None:
    assert block in EXAMPLE


def test_the_page_counts_the_checks_right() -> None:
    assert len(CHECKS) == 16
    assert "through sixteen checks" in PAGE
    table = PAGE[PAGE.index("| `shapes` |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*\.) \|$", table, flags=re.MULTILINE)
    assert rows == [(name, check.asks) for name, check in CHECKS.items()]


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_commands_run_in_order(tmp_path: Path) -> None:
    """Each as the page says it, but with this Python's `dima`, and one folder up from what it writes."""
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 6
    for folder in ("examples", "dima", "worldmodel", "imagination", "envs", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for command in commands:
        words = command.replace("dima ", f"{sys.executable} -m dima.run.cli ", 1)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PWD": str(tmp_path), "PYTHONPATH": str(tmp_path)}
        result = subprocess.run(
            words, shell=True, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
    assert (tmp_path / "runs" / "plug_in" / "scores.json").exists()
    assert (tmp_path / "runs" / "plug_in_prediction" / "prediction.json").exists()
