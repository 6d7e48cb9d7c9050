"""The commands as a person meets them: what works ends with 0 and its files, what cannot work is one line and 2."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from dima.run import cli
from tests.support.commands import LINEAR_MODEL, POINT_TEAM, SMALL, dima, refusal, rows, start

OUT = "out=run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = dima("train", *SMALL, OUT, cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown command": (("trian",), "unknown command 'trian'; did you mean 'train'"),
    "typo in a key": (("train", *SMALL, "trainer.update=3"), "unknown key 'trainer.update'; did you mean 'trainer.upd"),
    "typo at the root": (("train", *SMALL, "env_stepz=3"), "unknown key 'env_stepz'; did you mean 'env_steps'"),
    "unknown key added": (("train", *SMALL, "+trainer.foo=1"), "in trainer: unknown key 'foo'"),
    "unknown key of a plug-in": (("train", *SMALL, "world_model.foo=1"), "in world_model: unknown key 'foo'"),
    "wrong type": (("train", *SMALL, "env_steps=many"), r"env_steps = 'many' \(str\): expected int"),
    "wrong type inside": (("train", *SMALL, "policy.mappo.clip=wide"), "MappoConfig.clip = 'wide'.*expected float"),
    "out of range": (("train", *SMALL, "trainer.eval_episodes=0"), "eval_episodes = 0: expected at least 1"),
    "nonsense": (("train", "a b"), "a b"),
    "unknown task": (("train", "env=mamujoco/halfcheeta-2x3"), "did you mean 'mamujoco/halfcheetah-2x3'"),
    "unknown model": (("train", *POINT_TEAM, "world_model=dina"), "world_model=dina: .*did you mean 'dima'"),
    "unknown preset": (
        ("train", "preset=papr"),
        "preset=papr: .*did you mean 'paper'",
    ),
    "part of a preset": (
        ("train", *SMALL, "world_model_preset=smoke"),
        "world_model_preset=smoke: world_model_preset is chosen by preset; say preset=NAME",
    ),
    "part of a preset, where there are none": (("predict", "+world_model_preset=no"), "say preset=NAME"),
    "target that is not there": (
        ("train", *SMALL, "world_model._target_=no.such.Model"),
        "world_model._target_ = no.such.Model: cannot be imported",
    ),
    "target that is no config": (
        ("train", *SMALL, "world_model._target_=os.system"),
        "expected a subclass of worldmodel.config.Config",
    ),
    "value that is missing": (("train", *LINEAR_MODEL, "env=pettingzoo"), "env.make has no value; give one: env.make="),
    "updates without a part": (
        ("train", *SMALL, "trainer.updates={dynamics: 3}"),
        "expected a number for the world model's part 'decoder'",
    ),
    "checkpoint of a new run": (("train", *SMALL, "checkpoint=3"), "checkpoint = 3: only of use with resume=RUN"),
    "unknown flag": (("train", "--fast"), "unknown option --fast; values are given as key=value"),
    "missing run": (("train", "resume=nowhere"), "no run folder at 'nowhere'"),
    "missing run to evaluate": (("evaluate", "run=nowhere"), "no run folder at 'nowhere'"),
    "no run to play": (("play",), "run has no value; give one: run=VALUE"),
    "state with NaN": (("train", *SMALL, "env.fault=not_finite"), r"state\[0\] has the value nan"),
    "observation too short": (("train", *SMALL, "env.fault=shape"), r"obs has shape \[2, 3\]; expected .*\[2, 4\]"),
    "observation in float64": (("train", *SMALL, "env.fault=dtype"), "obs has dtype float64; expected float32"),
    "reward without bound": (("train", *SMALL, "env.fault=reward"), "reward has the value inf"),
    "a fault found by check-env": (
        ("check-env", *POINT_TEAM, "env.fault=dtype"),
        "1 thing wrong with PointTeam",
    ),
}
if not torch.cuda.is_available():
    MISTAKES["no GPU"] = (("train", *SMALL, "device=cuda"), "torch finds no CUDA device here; use device=auto")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, tmp_path, *arguments)
    assert re.search(message, line), line
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_left_as_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    before = sorted((str(file), file.stat().st_mtime_ns) for file in run.rglob("*"))
    assert cli.main(["train", *SMALL, OUT]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert sorted((str(file), file.stat().st_mtime_ns) for file in run.rglob("*")) == before


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    assert cli.main(["train", *SMALL, "tracking.tensorboard=true"]) == 2
    assert "pip install 'dima[tensorboard]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_debugging_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIMA_DEBUG", "1")
    with pytest.raises(ValueError, match="no run folder"):
        cli.main(["train", "resume=nowhere"])


def test_a_nan_in_training_names_part_update_and_checkpoint(tmp_path: Path) -> None:
    """The dynamics takes 3 updates a round from env step 30 on: its 8th is in the round that ends at 60."""
    outcome = dima("train", *SMALL, OUT, "world_model.poison_at=8", cwd=tmp_path)
    assert outcome.code == 2
    message = "'dynamics': loss or gradient is not finite at its update 8 .*last good checkpoint: run/checkpoints/30$"
    assert re.search(message, outcome.stderr.strip())
    assert [row["env_steps"] for row in rows(tmp_path / "run")] == [0, 15, 30, 45]


def test_a_fault_of_the_environment_in_training_keeps_the_run(tmp_path: Path) -> None:
    """Its own step counts begin anew in every instance: the evaluation's are past, the collector's is not."""
    outcome = dima("train", *SMALL, OUT, "env.fault=not_finite", "env.fault_at=85", cwd=tmp_path)
    assert outcome.code == 2
    assert re.search(
        r"state\[0\] has the value nan.*last good checkpoint: run/checkpoints/\d+$", outcome.stderr.strip()
    )


def test_a_run_folder_holds_what_was_promised(finished: Path) -> None:
    names = {entry.name for entry in finished.iterdir()}
    assert names == {"config.yaml", "manifest.json", "metrics.jsonl", "scores.json", "checkpoints"}
    scores = json.loads((finished / "scores.json").read_text())
    assert (scores["env"], scores["seed"]) == ("test/point-team", 0)
    assert [evaluation["env_steps"] for evaluation in scores["evaluations"]] == [0, 60, 120]
    assert {len(evaluation["returns"]) for evaluation in scores["evaluations"]} == {len(set(scores["episode_seeds"]))}
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    promised = "episode/return eval/return_mean imagination/reward_mean imagination/steps_per_s policy/entropy"
    promised += " policy/clip_fraction critic/loss time/collect_s time/world_model_s time/imagination_s time/policy_s"
    promised += " world_model/dynamics_loss world_model/decoder_loss env_steps updates time_s"
    assert set(promised.split()) <= set(last)
    # 7 training rounds of 3 updates of 2 parts, 6 with 2 policy updates
    assert (last["env_steps"], last["updates"]) == (120, 7 * 3 * 2 + 6 * 2)
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["is_finished"]
    assert manifest["env_steps"] == 120
    assert manifest["spec"]["versions"] == [["point-team", "1"]]
    assert manifest["versions"]["torch"] == torch.__version__


def test_evaluate_repeats_the_scores_of_training(run: Path) -> None:
    outcome = dima("evaluate", "run=run", "episodes=3", "out=scores", "device=cpu", cwd=run.parent)
    assert outcome.code == 0, outcome.stderr
    trained = json.loads((run / "scores.json").read_text())
    scores = json.loads((run.parent / "scores/scores.json").read_text())
    assert scores["episode_seeds"][:2] == trained["episode_seeds"]
    assert scores["evaluations"][0]["env_steps"] == 120
    assert scores["evaluations"][0]["returns"][:2] == pytest.approx(trained["evaluations"][-1]["returns"], rel=1e-6)


def test_evaluate_writes_beside_the_scores_of_training(run: Path) -> None:
    before = (run / "scores.json").read_bytes()
    outcome = dima("evaluate", "run=run", "checkpoint=90", "deterministic=false", "device=cpu", cwd=run.parent)
    assert outcome.code == 0, outcome.stderr
    assert (run / "scores.json").read_bytes() == before
    [written] = run.glob("evaluate/90-*/scores.json")
    assert len(json.loads(written.read_text())["evaluations"][0]["returns"]) == 10


@pytest.mark.slow
def test_the_seed_of_an_evaluation_decides_its_noise_too(tmp_path: Path) -> None:
    """In an environment whose episodes are all alike, sampled actions alone make returns differ."""
    assert dima("train", *SMALL, OUT, "env.ignores_seed=true", "env_steps=30", cwd=tmp_path).code == 0

    def returns(seed: int, out: str) -> list[float]:
        words = ("run=run", f"seed={seed}", "episodes=2", "deterministic=false", "device=cpu", f"out={out}")
        outcome = dima("evaluate", *words, cwd=tmp_path)
        assert outcome.code == 0, outcome.stderr
        return json.loads((tmp_path / out / "scores.json").read_text())["evaluations"][0]["returns"]

    first = returns(1, "one")
    assert returns(1, "again") == first
    assert returns(2, "two") != first


def test_play_films_every_step(run: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    from imageio_ffmpeg import count_frames_and_secs

    outcome = dima("play", "run=run", "seed=5", "fps=10", "device=cpu", cwd=run.parent)
    assert outcome.code == 0, outcome.stderr
    frames, seconds = count_frames_and_secs(str(run / "play/step120-seed5.mp4"))
    assert (frames, seconds) == (41, pytest.approx(4.1, abs=0.11))


def test_check_env_finds_nothing_wrong(tmp_path: Path) -> None:
    outcome = dima("check-env", *POINT_TEAM, cwd=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "nothing wrong" in outcome.stdout


@pytest.mark.slow
def test_bench_writes_its_figures(tmp_path: Path) -> None:
    outcome = dima("bench", *SMALL, "repeats=2", "bench_steps=100", "out=here", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    figures = json.loads((tmp_path / "here/bench.json").read_text())
    assert figures["schema"] == 1
    assert (figures["num_rollouts"], figures["horizon"]) == (16, 3)
    assert set(figures["parts"]) == {"dynamics", "decoder"}
    positive = [figures["imagined_steps_per_core_s"], figures["imagined_steps_per_s"]]
    positive += [figures["policy"]["update_ms"], figures["parts"]["decoder"]["update_ms"]]
    positive += [figures["peak_memory_mb"]["host"], figures["collect"]["env_steps_per_s"]]
    assert min(positive) > 0
    assert figures["hardware"]["cpu"]


@pytest.mark.slow
def test_a_sweep_runs_one_after_another(tmp_path: Path) -> None:
    outcome = dima("train", *SMALL, "env_steps=15", "-m", "seed=0,1", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    runs = sorted(path.parent.name.split("-")[0] for path in tmp_path.glob("runs/custom/custom/*/scores.json"))
    assert runs == ["seed0", "seed1"]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    child = start("train", *SMALL, OUT, "env.step_s=0.02", cwd=tmp_path)
    while not (tmp_path / "run/checkpoints/30").exists():
        assert child.exitcode is None
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 130
    assert "go on with: dima train resume=run" in (tmp_path / "stdout").read_text()
    assert (tmp_path / "stderr").read_text() == ""


def test_a_damaged_checkpoint_is_refused_and_the_offered_command_works(run: Path) -> None:
    file = run / "checkpoints/120/policy.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    outcome = dima("train", "resume=run", cwd=run.parent)
    assert outcome.code == 2
    assert "checkpoint run/checkpoints/120 is damaged: policy.safetensors has" in outcome.stderr
    offered = re.search(r"dima (train resume=run checkpoint=90)$", outcome.stderr.strip())
    assert offered, outcome.stderr
    before = rows(run)
    assert dima(*offered.group(1).split(), cwd=run.parent).code == 0
    assert rows(run) == before
    damaged = dima("evaluate", "run=run", "checkpoint=120", cwd=run.parent)
    assert damaged.code == 0, "training wrote a whole one in the damaged one's place"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "seed=3",
            "seed=3: with resume=RUN only env_steps, device, num_threads, trainer, tracking, profile, engine may",
        ),
        ("world_model=dima", "world_model=dima: with resume=RUN only"),
        ("preset=paper", "preset=paper: with resume=RUN only"),
        ("trainer.num_envs=2", "trainer.num_envs=2: with resume=RUN only"),
        ("trainer.collect_workers=1", "trainer.collect_workers=1: with resume=RUN only"),
        ("trainer={collect_workers: 1}", "but neither trainer.num_envs nor trainer.collect_workers"),
    ],
)
def test_a_resumed_run_keeps_what_it_was(run: Path, change: str, message: str) -> None:
    outcome = dima("train", "resume=run", change, cwd=run.parent)
    assert outcome.code == 2
    assert message in outcome.stderr


def test_a_finished_run_resumed_shows_its_table_again(run: Path) -> None:
    before = rows(run)
    outcome = dima("train", "resume=run", cwd=run.parent)
    assert outcome.code == 0, outcome.stderr
    assert "last evaluation (120 env steps)" in outcome.stdout
    assert rows(run) == before


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in cli._COMMANDS)])
def test_help_explains_with_examples(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "xamples" in printed
    assert f"dima {arguments[0]} " in printed or "dima train" in printed


def test_help_of_fit_lists_what_can_be_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--help"]) == 0
    printed = capsys.readouterr().out
    configs = Path(cli.__file__).parents[2] / "configs"
    folders = {"inference": "fitting/inference", "preset": "preset", "world_model": "world_model"}
    for group, folder in folders.items():
        listed = re.search(rf"^ *{group}: ([a-z_]+(?:, [a-z_]+)*)", printed, re.MULTILINE)
        assert listed is not None, printed
        expected = {file.stem for file in (configs / folder).glob("*.yaml")} - {"joint", "oracle"}  # they learn nothing
        assert set(listed[1].split(", ")) == expected
    assert "fitting/inference" not in printed


def test_a_gpu_machine_starts_with_the_paper_s_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[bool, list[str], bool]] = [
        (True, [], True),
        (False, [], False),
        (True, ["preset=smoke"], False),
        (True, ["device=cpu"], False),
        (True, ["resume=run"], False),
    ]
    for has_gpu, arguments, expected in cases:
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert ("preset=paper" in cli._with_defaults("train", arguments)) is expected, (has_gpu, arguments)
