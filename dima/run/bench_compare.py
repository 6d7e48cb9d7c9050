"""`dima bench compare A B`: two bench.json side by side; and the table of one, which `dima bench` ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dima.run.console import say

_USAGE = """dima bench compare A B: every figure that two measurements have in common, and B / A

A and B: files that dima bench wrote, or folders with a bench.json

examples
  dima bench compare before/bench.json after/bench.json
  dima bench compare benchmarks/results/bench_cpu/ant-4x2-cpu.json runs/bench/mamujoco/ant-4x2/cpu-TIME"""

_MEASURED = (
    "imagined_steps_per_core_s",
    "imagined_steps_per_s",
    "stages",
    "parts",
    "policy",
    "collect",
    "machine",
    "growth",
    "peak_memory_mb",
)
"""Keys of bench.json under which figures are."""

_SETTINGS = ("env", "env_versions", "world_model", "preset", "num_rollouts", "horizon", "engine")
_ORIGINS = ("hardware", "versions", "commit", "dirty")

_NOT_COMPARED = {"count", "parameters", "batch_size", "segment_length", "update_cpu_ms", "update_ms"}
"""Sizes, and what `stages` repeats where both files have it."""

_COLUMNS = {
    "ms": "ms",
    "cpu_ms": "core-ms",
    "per_s": "a second",
    "per_core_s": "a core-second",
    "share_of_matrix_rate": "of matrix rate",
    "share_of_bandwidth": "of bandwidth",
    "peak_memory_mb": "memory MB",
    "speedup": "over its twin",
}


class BenchFileError(ValueError):
    """A file that is missing, damaged or no bench.json, or two that have nothing in common."""


def compare(arguments: Sequence[str]) -> None:
    """Print the comparison that `arguments`, two files or folders, ask for.

    Raises:
        BenchFileError: when a file cannot be compared; says why.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        say(_USAGE)
        return
    if len(arguments) != 2:
        raise BenchFileError(f"compare takes two bench.json or folders, not {len(arguments)}: dima bench compare A B")
    a, b = (read_bench(Path(argument)) for argument in arguments)
    rows = common_figures(a, b)
    if not rows:
        raise BenchFileError(f"{arguments[0]} and {arguments[1]} have no figure in common")
    table = Table(title=f"A: {arguments[0]}\nB: {arguments[1]}", title_justify="left")
    for heading in ("figure", "A", "B", "B / A"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, first, second in rows:
        ratio = f"{second / first:.3f}" if first else "-"
        table.add_row(name, _number(first), _number(second), ratio)
    _console().print(table)
    for line in differences(a, b):
        say(line)


def read_bench(path: Path) -> dict[str, Any]:
    """The content of a bench.json, named by its file or its folder.

    Raises:
        BenchFileError: when it is missing, damaged or something else.
    """
    file = path / "bench.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchFileError(f"no bench.json at {str(path)!r}; dima bench out={path} writes one") from error
    except (OSError, ValueError) as error:
        raise BenchFileError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "hardware" not in content or not any(key in content for key in _MEASURED):
        raise BenchFileError(f"{file} is not what dima bench writes")
    if content.get("schema") != 1:
        raise BenchFileError(f"{file} has schema {content.get('schema')!r}; this program reads schema 1")
    return content


def common_figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(dotted name, in A, in B) of every figure that both have; older keys only where `stages` does not say it."""
    both_have_stages = "stages" in a and "stages" in b
    skipped = _NOT_COMPARED if both_have_stages else _NOT_COMPARED - {"update_cpu_ms", "update_ms"}
    first, second = (dict(_figures({key: x[key] for key in _MEASURED if key in x}, skipped)) for x in (a, b))
    return [(name, value, second[name]) for name, value in first.items() if name in second and (value or second[name])]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """A line for each thing that makes the comparison less than fair, and for what only one of the two has."""
    lines = []
    for kind, keys in (("settings", _SETTINGS), ("origin", _ORIGINS)):
        first, second = (dict(_leaves({key: x.get(key) for key in keys})) for x in (a, b))
        for name in first | second:
            if first.get(name) != second.get(name):
                lines.append(f"note: other {kind}: {name} is {first.get(name)!r} in A, {second.get(name)!r} in B")
    for here, there, name in ((a, b, "A"), (b, a, "B")):
        only = sorted(set(here.get("stages", {})) - set(there.get("stages", {})))
        if only:
            lines.append(f"note: only {name} has stages {', '.join(only)}")
    return lines


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _figures(tree: Any, skipped: set[str]) -> Iterator[tuple[str, float]]:
    for name, value in _leaves(tree):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and name.rpartition(".")[2] not in skipped:
            yield name, value


def print_stages(result: Mapping[str, Any]) -> None:
    """Print the stages of one bench.json as a table, with what the machine can do at most."""
    stages: dict[str, dict[str, Any]] = result.get("stages", {})
    if not stages:
        return
    columns = {key: column for key, column in _COLUMNS.items() if any(key in stage for stage in stages.values())}
    table = Table(title=f"{result['env']}, preset {result['preset']}, {result['hardware']['cpu']}")
    table.add_column("stage")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for name, stage in stages.items():
        table.add_row(name, *(_cell(key, stage) for key in columns), stage["unit"])
    _console().print(table)
    machine, memory = result["machine"], result["peak_memory_mb"]
    rate = f"{machine['matrix_gflops']:,.0f} GFLOP/s (float32), {machine['memory_gb_per_s']:,.1f} GB/s"
    say(f"this machine at most, per {_clock(result)}: {rate}")
    on_device = "" if memory["device"] is None else f", on the GPU {memory['device']:,.0f} MB"
    say(f"peak memory of the process: {memory['host']:,.0f} MB{on_device}")


def _clock(result: Mapping[str, Any]) -> str:
    return "core-second" if result["hardware"]["gpu"] is None else "second"


def _cell(key: str, stage: Mapping[str, Any]) -> str:
    value: float | None = stage.get(key)
    if not value:
        return "-"
    if key.startswith("share"):
        return f"{value:.2%}"
    return f"{value:.2f} x {stage['twin'].replace('_', ' ')}" if key == "speedup" else _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)
