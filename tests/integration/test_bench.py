"""`dima bench` and `dima bench compare` as commands, the growth curves, and the script that watches memory."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from dima.run import bench_growth
from dima.run.bench_growth_figure import draw_growth
from dima.run.settings import TrainSettings, read_settings
from tests.support.commands import SMALL, Outcome, dima

STAGE_KEYS = {
    *("ms", "cpu_ms", "unit", "count", "per_s", "per_core_s", "flops", "bytes"),
    *("share_of_matrix_rate", "share_of_bandwidth", "peak_memory_mb"),
}
TOY_DIMA = ("env=toy/linear", "preset=smoke", "device=cpu", "num_threads=1")
STAGES = "collect,replay,parts,fit,pack,imagine,policy,checkpoint"
SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def measured(folder: Path) -> Outcome:
    words = (f"stages=[{STAGES}]", "repeats=1", "bench_steps=100", "trainer.updates=1", "out=whole")
    return dima("bench", *TOY_DIMA, *words, cwd=folder)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_every_stage_has_its_figures(measured: Outcome, folder: Path) -> None:
    assert measured.code == 0, measured.stderr
    figures = read(folder / "whole/bench.json")
    stages = figures["stages"]
    parts = ["decoder", "denoiser", "reward_termination"]
    assert list(stages) == ["collect", "replay", *parts, "fit", "pack", "imagine", "policy", "checkpoint"]
    for stage in stages.values():
        assert set(stage) >= STAGE_KEYS
        assert min(stage["ms"], stage["cpu_ms"], stage["per_s"], stage["per_core_s"], stage["bytes"]) > 0
        assert stage["peak_memory_mb"] >= 0
    for name in (*parts, "fit", "imagine", "policy"):
        assert 0 < stages[name]["share_of_matrix_rate"] <= 1.5
        assert 0 < stages[name]["share_of_bandwidth"] <= 1.5
    assert min(figures["machine"][name] for name in ("matrix_gflops", "memory_gb_per_s", "threads")) > 0
    assert list((folder / "whole").iterdir()) == [folder / "whole/bench.json"], "scratch files are gone"


def test_older_keys_agree_with_the_stages(measured: Outcome, folder: Path) -> None:
    figures = read(folder / "whole/bench.json")
    assert figures["imagined_steps_per_core_s"] == figures["stages"]["imagine"]["per_core_s"]
    assert figures["parts"]["denoiser"]["update_ms"] == figures["stages"]["denoiser"]["ms"]
    assert figures["policy"]["update_cpu_ms"] == figures["stages"]["policy"]["cpu_ms"]


def test_the_table_names_stages_and_the_machine(measured: Outcome) -> None:
    for word in ("reward_termination", "a core-second", "of matrix rate", "x eager", "x in lanes", "GFLOP/s", "GB/s"):
        assert word in measured.stdout


def test_fitting_is_compared_by_both_clocks(measured: Outcome, folder: Path) -> None:
    fit = read(folder / "whole/bench.json")["stages"]["fit"]
    assert fit["count"] == 3, "an update a round of three parts"
    assert fit["twin"] == "in_lanes"
    assert min(fit["in_lanes"]["ms"], fit["in_lanes"]["cpu_ms"], fit["speedup_wall"], fit["speedup_cpu"]) > 0
    assert fit["speedup"] == fit["speedup_wall"]


@pytest.mark.slow
def test_collecting_by_workers_beside_collecting_here(folder: Path) -> None:
    words = ("stages=[collect]", "trainer.collect_workers=1", "repeats=1", "bench_steps=50", "out=workers.json")
    outcome = dima("bench", *SMALL, *words, cwd=folder)
    assert outcome.code == 0, outcome.stderr
    collect = read(folder / "workers.json")["stages"]["collect"]
    assert collect["count"] == 15
    assert collect["twin"] == "in_process"
    assert collect["in_process"]["ms"] > 0


def test_one_part_by_its_name(folder: Path) -> None:
    outcome = dima("bench", *SMALL, "stages=[decoder]", "repeats=1", "bench_steps=50", "out=one.json", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    figures = read(folder / "one.json")
    assert list(figures["stages"]) == list(figures["parts"]) == ["decoder"]
    assert not {"policy", "collect", "imagined_steps_per_core_s"} & set(figures)


def test_a_stage_that_is_not_there_is_refused(folder: Path) -> None:
    outcome = dima("bench", *SMALL, "stages=[imagin]", "out=none", cwd=folder)
    assert outcome.code == 2
    assert "stages: there is no 'imagin'; did you mean 'imagine'?" in outcome.stderr
    assert "dynamics, decoder, fit, pack, imagine, policy, checkpoint, parts" in outcome.stderr


def test_compare_as_a_command(measured: Outcome, folder: Path) -> None:
    outcome = dima("bench", "compare", "whole", "whole/bench.json", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    assert "stages.imagine.cpu_ms" in outcome.stdout
    assert "1.000" in outcome.stdout
    assert "note:" not in outcome.stdout
    missing = dima("bench", "compare", "whole", "nowhere", cwd=folder)
    assert (missing.code, missing.stderr.count("\n")) == (2, 1)
    assert "no bench.json at 'nowhere'" in missing.stderr
    assert "dima bench compare A B" in dima("bench", "compare", "--help", cwd=folder).stdout
    assert "dima bench compare A B" in dima("bench", "--help", cwd=folder).stdout


def test_growth_of_a_plug_in_model_says_what_it_cannot_be_asked(folder: Path) -> None:
    words = ("stages=[]", "growth=[state,denoising_steps]", "repeats=1", "out=grown")
    outcome = dima("bench", *SMALL, *words, cwd=folder)
    assert outcome.code == 0, outcome.stderr
    growth = read(folder / "grown/bench.json")["growth"]
    assert list(growth["state"]) == ["17", "64", "256", "1024"]
    assert set(growth["state"]["64"]["updates"]) == {"dynamics", "decoder"}
    assert growth["denoising_steps"]["2"] == {"skipped": "LinearModel has no number of denoising steps to choose"}
    assert (folder / "grown/growth.png").stat().st_size > 10_000


def test_growth_of_dima(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = {"agents": (2, 3), "state": (17, 20), "rollouts": (1, 8), "denoising_steps": (1, 2, 4)}
    monkeypatch.setattr(bench_growth, "VALUES", few)
    with initialize_config_module("configs", version_base="1.3"):
        settings: TrainSettings = read_settings(compose("train", ["env=toy/linear", "preset=smoke"]))
    growth = bench_growth.grow(
        ("agents", "rollouts", "denoising_steps"), settings, 1, torch.device("cpu"), compare_eager=True
    )
    assert growth["agents"]["3"]["updates"]["denoiser"]["cpu_ms"] > 0
    cost = {rollouts: record["imagined_step"]["cpu_ms"] for rollouts, record in growth["rollouts"].items()}
    assert cost["1"] > 2 * cost["8"]
    steps = growth["denoising_steps"]
    assert "expected at least one step an agent" in steps["1"]["skipped"]
    assert steps["4"]["imagined_step"]["cpu_ms"] > steps["2"]["imagined_step"]["cpu_ms"]
    hardware = {"gpu": None, "cpu": "a processor", "num_threads": 1}
    result = {"growth": growth, "hardware": hardware, "world_model": "dima", "preset": "smoke"}
    draw_growth(result, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_memory_script_writes_its_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--minutes", "0.01", "--transitions", "2500", "--rollouts", "4", "--horizon", "2", "--preset", "smoke"]
    monkeypatch.setattr(sys, "argv", ["memory.py", str(tmp_path), *sizes, "device=cpu", "num_threads=1"])
    runpy.run_path(str(SCRIPTS / "memory.py"), run_name="__main__")
    memory = read(tmp_path / "memory.json")
    assert memory["replay"]["transitions"] == 2500
    assert memory["replay"]["promised_mb"] == pytest.approx(2503 * 2202 / 1e6, rel=1e-6)
    assert len(memory["time_s"]) == len(memory["resident_mb"]) >= 2
    assert set(memory["slopes_mb_per_minute"]) == {"first_after_warmup", "last"}
    assert (tmp_path / "memory.png").exists()
