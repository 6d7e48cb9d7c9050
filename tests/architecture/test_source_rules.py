"""Rules of the source: nothing runs a stranger's code, libraries do not print, files and functions stay short."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("worldmodel", "dima", "imagination", "envs")

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _keywords(call: ast.Call) -> dict[str, object]:
    return {k.arg: k.value.value for k in call.keywords if k.arg and isinstance(k.value, ast.Constant)}


def _unsafe_call(call: ast.Call) -> str | None:
    name, keywords = ast.unparse(call.func), _keywords(call)
    if name in ("eval", "exec", "__import__", "os.system"):
        return name
    if name == "torch.load" and keywords.get("weights_only") is not True:
        return "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", False) is not False:
        return "numpy.load with allow_pickle"
    if name in ("yaml.load", "yaml.full_load", "yaml.unsafe_load"):
        return f"{name} instead of yaml.safe_load"
    if keywords.get("shell") is True:
        return "shell=True"
    return None


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of everything that could run code out of a file that was given to us."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((node.lineno, f"import {name}") for name in modules if name.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.Call) and (what := _unsafe_call(node)):
            yield node.lineno, what


def prints(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every call of print."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "print"


def long_functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of functions above the ceiling."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines"


def _broken(rule: Callable[[ast.AST], Iterator[tuple[int, str]]], sources: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sources
        for line, what in rule(ast.parse(path.read_text()))
    ]


def test_nothing_runs_code_out_of_data() -> None:
    assert _broken(unsafe, _sources()) == []


def test_libraries_do_not_print() -> None:
    libraries = [path for path in _sources() if ROOT / "dima" / "run" not in path.parents]
    assert _broken(prints, libraries) == []


def test_functions_stay_readable() -> None:
    assert _broken(long_functions, _sources()) == []


def test_files_stay_readable() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_unsafe_source_is_found(source: str) -> None:
    assert len(list(unsafe(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source", ["model.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "yaml.safe_load(text)"]
)
def test_safe_source_is_left_alone(source: str) -> None:
    assert list(unsafe(ast.parse(source))) == []


def test_long_functions_and_prints_are_found() -> None:
    source = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES + "    print(x)\n"
    assert [what for _, what in long_functions(ast.parse(source))] == [f"f has {MAX_FUNCTION_LINES + 2} lines"]
    assert len(list(prints(ast.parse(source)))) == 1
