"""The study driver of benchmarks/prediction on a tiny plan: cells, resuming, failures, tables from what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "prediction"

PLAN: dict[str, Any] = {
    "datasets": {
        "linear": {
            "collect": {"env": "toy/linear", "env.episode_steps": 12, "policy": "ou", "episodes": 5, "num_workers": 1}
        },
        "nowhere": {"collect": {"env": "toy/nowhere", "episodes": 2}},
    },
    "fit": {"preset": "smoke", "device": "cpu", "num_threads": 1},
    "predict": {"horizon": 3, "segments": 6, "samples": 2, "orders": ["descending", "cycle"], "gain_states": 4},
    "groups": {
        "main": {
            "datasets": ["linear"],
            "fit": {"updates": {"denoiser": 3, "decoder": 2, "reward_termination": 1}, "world_model.reveal": "joint"},
            "predict_matrix": {"num_denoising_steps": [4, 8]},
        },
        "broken": {"datasets": ["nowhere"], "seeds": [0, 1]},
    },
    "fans": ["main_linear_num_denoising_steps-4_seed-0"],
}
FIRST, SECOND = "main_linear_num_denoising_steps-4_seed-0", "main_linear_num_denoising_steps-8_seed-0"


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def study(folder: Path, *arguments: str, plan: dict[str, Any] = PLAN) -> subprocess.CompletedProcess[str]:
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    places = ("--work", folder / "work", "--results", folder / "results")
    return run("study.py", folder / "plan.yaml", *places, *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def first_run(folder: Path) -> subprocess.CompletedProcess[str]:
    results = folder / "results"
    results.mkdir()
    for arguments in (["init", "--quiet"], ["config", "user.name", "A"], ["config", "user.email", "a@example.org"]):
        subprocess.run(["git", "-C", str(results), *arguments], check=True)
    return study(folder, "--commit")


@pytest.mark.slow
def test_cells_that_fail_are_named_and_do_not_stop_the_others(
    first_run: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert first_run.returncode == 1
    assert first_run.stdout.endswith("2 failed: broken_nowhere_seed-0 broken_nowhere_seed-1\n")
    assert "toy/nowhere" in first_run.stdout
    assert "dataset nowhere has failed before" in first_run.stdout
    assert sorted(path.stem for path in folder.glob("results/cells/*.json")) == [FIRST, SECOND]


@pytest.mark.slow
@pytest.mark.usefixtures("first_run")
def test_two_measurements_share_one_fit_and_tell_what_it_took(folder: Path) -> None:
    records = [json.loads((folder / f"results/cells/{name}.json").read_text()) for name in (FIRST, SECOND)]
    (fit,) = folder.glob("work/runs/*")
    manifest = json.loads((fit / "manifest.json").read_text())

    for record, num_steps in zip(records, (4, 8), strict=True):
        assert record["fitted"]["updates"] == {"decoder": 2, "denoiser": 3, "reward_termination": 1}
        assert record["fitted"]["training_steps"] == manifest["data"]["training_steps"] == 48
        assert set(record["fitted"]["held_out_loss"]) >= {"decoder", "denoiser", "reward_termination"}
        assert record["prediction"]["options"]["num_denoising_steps"] == num_steps
        assert record["cost"]["fit"]["cpu_s"] > 0
        assert record["cost"]["fit"] == records[0]["cost"]["fit"]
    assert ["fan" in record["prediction"] for record in records] == [True, False]


@pytest.mark.slow
@pytest.mark.usefixtures("first_run")
def test_what_is_kept_is_what_predict_wrote(folder: Path) -> None:
    kept = json.loads((folder / f"results/cells/{SECOND}.json").read_text())["prediction"]["orders"]["cycle"]
    written = json.loads((folder / f"work/predictions/{SECOND}/prediction.json").read_text())["orders"]["cycle"]

    assert kept["state"]["e"] == pytest.approx(written["state"]["e"], rel=1e-5)
    assert kept["state"]["ci95"]["3"] == pytest.approx(written["state"]["ci95"]["3"], rel=1e-5)
    assert kept["action_gain"] == pytest.approx(written["action_gain"], rel=1e-5, abs=1e-12)
    assert "e_ci95" in written["state"]
    assert "e_ci95" not in kept["state"]


@pytest.mark.slow
@pytest.mark.usefixtures("first_run")
def test_every_cell_is_a_commit(folder: Path) -> None:
    log = subprocess.run(
        ["git", "-C", str(folder / "results"), "log", "--format=%s", "--reverse"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.stdout.splitlines() == [f"Measure {FIRST}", f"Measure {SECOND}"]


@pytest.mark.slow
@pytest.mark.usefixtures("first_run")
def test_only_a_deleted_cell_is_measured_again_and_comes_out_the_same(folder: Path) -> None:
    cells = folder / "results" / "cells"
    before = {name: (cells / f"{name}.json").read_text() for name in (FIRST, SECOND)}
    metrics = (next(folder.glob("work/runs/*")) / "metrics.jsonl").read_text()
    (cells / f"{SECOND}.json").unlink()

    again = study(folder, "--only", "^main")

    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("1 of 2 cells are measured, 1 to go\n")
    assert (cells / f"{FIRST}.json").read_text() == before[FIRST]
    assert (next(folder.glob("work/runs/*")) / "metrics.jsonl").read_text() == metrics
    old, new = (json.loads(text) for text in (before[SECOND], (cells / f"{SECOND}.json").read_text()))
    assert new["prediction"]["orders"] == old["prediction"]["orders"]


@pytest.mark.slow
@pytest.mark.usefixtures("first_run")
def test_tables_and_figures_come_from_what_was_measured(folder: Path) -> None:
    results = folder / "results"
    record = json.loads((results / "cells" / f"{FIRST}.json").read_text())
    state = record["prediction"]["orders"]["cycle"]["state"]
    low, high = state["ci95"]["3"]

    assert run("tables.py", results).returncode == 0
    assert run("figures.py", results).returncode == 0

    assert f"{state['cumulative']['3']:.2f} [{low:.2f}, {high:.2f}]" in (results / "TABLES.md").read_text()
    assert (results / "main.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("first_run")
def test_results_of_another_plan_are_not_taken_for_this_ones(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(folder / "results")

    outcome = study(tmp_path, "--only", "^main", plan={**PLAN, "fit": {**PLAN["fit"], "held_out": 0.4}})

    assert outcome.returncode == 2
    assert "measured with other settings" in outcome.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"grups": {}}, "unknown key 'grups'"),
        ({"groups": {"main": {"datasets": ["moon"]}}}, "there is no dataset 'moon'"),
        ({"fans": ["main_moon"]}, "there is no cell 'main_moon'"),
        ({"datasets": {"linear": {"collect": {}, "source": "R"}, "nowhere": {"collect": {}}}}, "--run R=DIR"),
    ],
)
def test_a_plan_with_a_mistake_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    outcome = study(tmp_path, plan={**PLAN, **change})

    assert outcome.returncode == 2
    assert outcome.stderr.startswith("study: ")
    assert complaint in outcome.stderr
    assert not (tmp_path / "work").exists()
