"""The README's commands compose and its links lead somewhere, so that what a newcomer copies works."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from dima.run.cli import for_plug_ins, respelt
from dima.run.settings import read_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Every `dima ...` and `make ...` in a code block, without its comment."""
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(PYTHONPATH=\. )?(dima|make) ", line)]


def dima_words(command: str) -> list[str]:
    """The words behind `dima`, as a shell in the repository's root would hand them over."""
    words = shlex.split(command.replace("'$PWD'", str(ROOT)))
    return words[words.index("dima") + 1 :]


def test_there_are_commands_to_check() -> None:
    found = commands()
    assert {"make train", "make test"} <= set(found)
    assert sum(" train" in command for command in found) > 5


@pytest.mark.parametrize("command", [c for c in commands() if "dima " in c])
def test_command_composes(command: str) -> None:
    name, *overrides = dima_words(command)
    import_module(f"dima.run.{name.replace('-', '_')}")
    composed = name in ("train", "collect", "predict")
    if not composed or "-m" in overrides or any(word.startswith("resume=") for word in overrides):
        return
    with initialize_config_module("configs", version_base="1.3"):
        assert read_settings(compose(name, for_plug_ins([respelt(name, word) for word in overrides]))).seed >= 0


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_target_exists(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
