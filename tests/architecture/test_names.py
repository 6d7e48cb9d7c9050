"""Names that are written down somewhere lead where they say: config targets, our packages, and no machine of ours."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from worldmodel.config import Config

ROOT = Path(__file__).parents[2]
FOLDERS = ("worldmodel", "dima", "imagination", "envs", "configs", "tests", "examples", "benchmarks", "docs", ".ci")
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".jsonl", ".cfg", ".sh", ""}

FOREIGN = {
    "a package registry's host": r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|(conda\.)?anaconda\.(org|com)",
    "a package index": r"--(extra-)?index-url[ =]\S",
    "somebody's home folder": r"(?<![\w.])/(home|Users)/\w+|(?<![\w.])/root/",
}


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a YAML tree."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield value
            else:
                yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def resolve(target: str) -> Any:
    """The object that a dotted name stands for; raises when there is none."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def text_files() -> Iterator[Path]:
    """What the repository keeps as text."""
    candidates = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        candidates += sorted((ROOT / folder).rglob("*"))
    for path in candidates:
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts:
            yield path


def foreign_mentions(text: str) -> list[str]:
    """What `text` says that holds on one machine only."""
    return [f"{what}: {found.group()}" for what, pattern in FOREIGN.items() if (found := re.search(pattern, text))]


CONFIG_FILES = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")])


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_targets_resolve(path: Path) -> None:
    for target in targets(yaml.safe_load(path.read_text())):
        if target != "???":  # left to the command line
            assert issubclass(resolve(target), Config), f"{target} is no Config"


def test_a_target_that_leads_nowhere_is_found() -> None:
    (target,) = targets(yaml.safe_load("a: [{b: {_target_: worldmodel.types.Nothing}}]"))
    with pytest.raises(AttributeError, match="Nothing"):
        resolve(target)


@pytest.mark.parametrize("package", ["worldmodel", "dima", "imagination", "envs", "configs"])
def test_packages_are_ours(package: str) -> None:
    """Names as general as `envs` exist elsewhere; another checkout on the path must not win."""
    found = importlib.import_module(package).__file__
    assert found == str(ROOT / package / "__init__.py")


def test_no_file_names_a_machine_or_a_registry() -> None:
    mentions = {
        str(path.relative_to(ROOT)): found
        for path in text_files()
        if path != Path(__file__) and (found := foreign_mentions(path.read_text()))
    }
    assert mentions == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("see https://pypi.org/simple", "a package registry's host"),
        ("pip install --index-url https://example.org torch", "a package index"),
        ("path: /home/ada/runs", "somebody's home folder"),
        ("path: /root/runs", "somebody's home folder"),
    ],
)
def test_a_foreign_mention_is_found(text: str, kind: str) -> None:
    assert [found.split(":")[0] for found in foreign_mentions(text)] == [kind]
