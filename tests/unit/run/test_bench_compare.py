"""`dima bench compare`: what two files have in common, and the one line for what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dima.run.bench_compare import BenchFileError, common_figures, compare, differences, read_bench


def bench(**changes: Any) -> dict[str, Any]:
    stage = {"ms": 10.0, "cpu_ms": 8.0, "unit": "updates", "count": 1, "flops": 0}
    return {
        "schema": 1,
        "env": "toy/linear-2x1",
        "preset": "smoke",
        "hardware": {"cpu": "A", "gpu": None, "num_threads": 1},
        "versions": {"torch": "2.13"},
        "stages": {"denoiser": stage},
        "parts": {"denoiser": {"update_ms": 10.0, "update_cpu_ms": 8.0, "batch_size": 8}},
        "imagined_steps_per_core_s": 100.0,
        **changes,
    }


def write(path: Path, content: dict[str, Any] | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_common_figures_are_there_once_and_sizes_are_no_figures() -> None:
    faster = bench(imagined_steps_per_core_s=250.0, policy={"update_ms": 3.0})
    assert common_figures(bench(), faster) == [
        ("imagined_steps_per_core_s", 100.0, 250.0),
        ("stages.denoiser.ms", 10.0, 10.0),
        ("stages.denoiser.cpu_ms", 8.0, 8.0),
    ]


def test_a_file_from_before_there_were_stages_is_compared_by_its_own_keys() -> None:
    old = bench()
    del old["stages"]
    names = [name for name, _, _ in common_figures(old, bench())]
    assert names == ["imagined_steps_per_core_s", "parts.denoiser.update_ms", "parts.denoiser.update_cpu_ms"]


def test_what_makes_a_comparison_unfair_is_said() -> None:
    other = bench(preset="paper", hardware={"cpu": "B", "gpu": None, "num_threads": 1}, stages={"policy": {"ms": 1.0}})
    assert differences(bench(), bench()) == []
    assert differences(bench(), other) == [
        "note: other settings: preset is 'smoke' in A, 'paper' in B",
        "note: other origin: hardware.cpu is 'A' in A, 'B' in B",
        "note: only A has stages denoiser",
        "note: only B has stages policy",
    ]


def test_files_and_folders_are_read_and_the_ratio_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "before/bench.json", bench())
    after = write(tmp_path / "after.json", bench(imagined_steps_per_core_s=250.0))
    compare([str(tmp_path / "before"), after])
    line = next(line for line in capsys.readouterr().out.splitlines() if "imagined_steps_per_core_s" in line)
    assert line.replace("│", " ").split() == ["imagined_steps_per_core_s", "100", "250", "2.500"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not what dima bench writes"),
        ({"schema": 1, "models": {}}, "is not what dima bench writes"),
        (bench(schema=2), "has schema 2; this program reads schema 1"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = write(tmp_path / "bench.json", content)
    with pytest.raises(BenchFileError, match=message):
        read_bench(Path(file))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchFileError, match="no bench.json at"):
        read_bench(tmp_path)
    with pytest.raises(BenchFileError, match=r"takes two .*, not 1"):
        compare(["one"])


def test_two_files_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    bare = {key: value for key, value in bench().items() if key not in ("stages", "parts", "imagined_steps_per_core_s")}
    files = [
        write(tmp_path / "a.json", {**bare, "policy": {"update_ms": 1.0}}),
        write(tmp_path / "b.json", {**bare, "collect": {"env_steps_per_s": 1.0}}),
    ]
    with pytest.raises(BenchFileError, match="have no figure in common"):
        compare(files)
