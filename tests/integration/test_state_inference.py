"""The path of a policy fed with the state: an inferencer is fitted, learns on beside the policy, and is acted on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.support.commands import POINT_TEAM, SMALL, dima, final_tensors, rows

FIT = ("preset=smoke", "device=cpu", "num_threads=1", "updates=30", "log_every=10", "checkpoint_every=10")
TRAIN = (
    *SMALL,
    "policy.policy.input=state",
    "inference.run=fit",
    "inference.every_episodes=1",
    "inference.updates=4",
)
"""Three episodes of 40 steps end in a run of 120: the inferencer learns three times."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset `data` of six episodes and `fit`, an inferencer fitted to it."""
    folder = tmp_path_factory.mktemp("fitted")
    outcome = dima("collect", *POINT_TEAM, "policy=ou", "episodes=6", "num_workers=1", "out=data", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    outcome = dima("fit", "data=data", "inference=globediff", *FIT, "out=fit", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture(scope="module")
def trained(fitted: Path) -> Path:
    """The same folder with `run`, a policy on states beside which the inferencer learned on."""
    outcome = dima("train", *TRAIN, "out=run", cwd=fitted)
    assert outcome.code == 0, outcome.stderr
    assert "at execution inferred by globediff from own observations of the last 4 steps" in outcome.stdout
    return fitted


def test_a_fit_says_what_it_reads_and_learns(fitted: Path) -> None:
    manifest = json.loads((fitted / "fit" / "manifest.json").read_text())
    assert manifest["inference"] == {"kind": "globediff", "auxiliary": "own", "history_steps": 3}
    figures = rows(fitted / "fit")
    assert {"inference/inference_loss", "held_out/inference_loss", "inference/inference_kl"} <= set(figures[-1])
    assert not any(name.startswith("world_model") for row in figures for name in row)


@pytest.mark.parametrize("kind", ["vae", "mlp"])
def test_the_other_inferencers_are_fitted_by_the_same_command(fitted: Path, kind: str) -> None:
    outcome = dima("fit", "data=data", f"inference={kind}", *FIT, f"out={kind}", cwd=fitted)
    assert outcome.code == 0, outcome.stderr
    assert json.loads((fitted / kind / "manifest.json").read_text())["inference"]["kind"] == kind


def test_a_stopped_fit_goes_on_to_the_same_bits(fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted / "data", tmp_path / "data")
    for words in (("data=data", "inference=globediff", *FIT[:-3], "updates=20", "checkpoint_every=10", "out=fit"),):
        assert dima("fit", *words, "final_learning_rate=1.0", cwd=tmp_path).code == 0
    assert dima("fit", "resume=fit", "updates=30", cwd=tmp_path).code == 0
    whole = ("data=data", "inference=globediff", *FIT[:-3], "updates=30", "checkpoint_every=10", "out=whole")
    assert dima("fit", *whole, "final_learning_rate=1.0", cwd=tmp_path).code == 0
    expected, got = final_tensors(tmp_path / "whole", ("inference",)), final_tensors(tmp_path / "fit", ("inference",))
    assert all(torch.equal(got["inference"][name], tensor) for name, tensor in expected["inference"].items())


def test_the_inferencer_learns_beside_the_policy(trained: Path) -> None:
    figures = rows(trained / "run")
    old_errors = [row["inference/old_error"] for row in figures if "inference/old_error" in row]
    assert len(old_errors) == 1 + 3  # before anything, and after each of three episodes
    assert len(set(old_errors)) == len(old_errors)
    before, after = (final_tensors(trained / name, ("inference",))["inference"] for name in ("fit", "run"))
    moved = [
        name
        for name, tensor in before.items()
        if not torch.equal(tensor, after[name.replace("state.", "state.model.", 1)])
    ]
    assert any("networks" in name for name in moved)
    assert not any("norm.mean" in name for name in moved), "old and new states must keep one scale"


def test_the_manifest_says_what_the_policy_acts_on(trained: Path) -> None:
    execution = json.loads((trained / "run" / "manifest.json").read_text())["execution"]
    assert (execution["actor_input"], execution["sees"]) == ("state", "own")
    assert execution["state"]["kind"] == "globediff"
    assert execution["state"]["history_steps"] == 3
    assert json.loads((trained / "run" / "scores.json").read_text())["execution"] == execution


def test_a_resumed_run_equals_an_unbroken_one(fitted: Path, tmp_path: Path) -> None:
    """With averaged weights, stopped when one episode of two has ended since the inferencer learned."""
    shutil.copytree(fitted / "data", tmp_path / "data")
    fit = ("data=data", "inference=globediff", *FIT, "inference.ema_decay=0.9", "out=fit")
    assert dima("fit", *fit, cwd=tmp_path).code == 0
    train = (*TRAIN, "inference.every_episodes=2")
    assert dima("train", *train, "env_steps=180", "out=whole", cwd=tmp_path).code == 0
    assert dima("train", *train, "env_steps=120", "out=run", cwd=tmp_path).code == 0
    assert _learned_at(tmp_path / "run") == [90]
    assert dima("train", "resume=run", "env_steps=180", cwd=tmp_path).code == 0
    assert _learned_at(tmp_path / "run") == _learned_at(tmp_path / "whole") == [90, 165]
    components = ("inference", "policy", "random", "world_model")
    expected, got = final_tensors(tmp_path / "whole", components), final_tensors(tmp_path / "run", components)
    assert any("averaged" in name for name in expected["inference"])
    for component, tensors in expected.items():
        for name, tensor in tensors.items():
            assert torch.equal(got[component][name], tensor), f"{component} {name}"


def _learned_at(run: Path) -> list[int]:
    """Env steps at the end of the rounds in which the inferencer learned."""
    return [row["env_steps"] for row in rows(run) if "inference/new_error_before" in row]


def _returns(folder: Path, *words: str) -> tuple[list[float], dict]:
    out = "_".join(words).replace("=", "-").replace("/", "-") or "plain"
    outcome = dima("evaluate", "run=run", "episodes=3", "num_threads=1", *words, f"out=scores/{out}", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    scores = json.loads((folder / "scores" / out / "scores.json").read_text())
    return scores["evaluations"][0]["returns"], scores["execution"]


@pytest.mark.slow
def test_evaluation_acts_on_what_it_is_told_to(trained: Path) -> None:
    own, execution = _returns(trained)
    assert execution["state"]["kind"] == "globediff"
    last = json.loads((trained / "run" / "scores.json").read_text())["evaluations"][-1]["returns"]
    assert own[: len(last)] == pytest.approx(last[: len(own)], rel=1e-4)
    fitted, execution = _returns(trained, "inference=fit")
    assert execution["state"]["run"].endswith("fit")
    true, execution = _returns(trained, "inference=oracle")
    assert execution["state"]["kind"] == "oracle"
    votes, execution = _returns(trained, "inference=fit", "combine=votes", "samples=5")
    assert (execution["state"]["combine"], execution["state"]["samples"]) == ("votes", 5)
    assert len({tuple(returns) for returns in (own, fitted, true, votes)}) == 4


@pytest.mark.slow
def test_a_film_is_of_what_is_evaluated(trained: Path) -> None:
    """The same episode, on the same inferred states: by the run's own inferencer, and by one that is named."""
    pytest.importorskip("imageio_ffmpeg")
    shown = set()
    for words, sees in (
        ((), "at execution inferred by globediff from own observations of the last 4 steps, draw of 1"),
        (("inference=fit", "combine=votes", "samples=3"), "of the last 4 steps, votes of 3"),
        (("inference=oracle",), "at execution the true state"),
    ):
        outcome = dima("play", "run=run", "num_threads=1", *words, "out=films", cwd=trained)
        assert outcome.code == 0, outcome.stderr
        assert sees in outcome.stdout
        evaluated = _returns(trained, *words, "episodes=1")[0][0]
        assert f"episode return {evaluated:.1f} over" in outcome.stdout
        shown.add(f"{evaluated:.1f}")
    assert len(list((trained / "films").glob("*.mp4"))) == 3, "a film replaced another"
    assert len(shown) > 1, "what is acted on changes nothing here: the returns above tell nothing"


def test_an_evaluation_needs_no_other_folder(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    assert _returns(tmp_path)[0] == _returns(trained, "episodes=3")[0]


def test_an_oracle_is_the_true_state(trained: Path, tmp_path: Path) -> None:
    """A policy trained without an inferencer acts on the true state; an oracle gives it the same."""
    shutil.copytree(trained / "run", tmp_path / "run")
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    config.inference = {"_target_": config.inference._target_}
    OmegaConf.save(config, tmp_path / "run" / "config.yaml")
    true, execution = _returns(tmp_path)
    assert execution == {"actor_input": "state", "sees": "full", "state": "true"}
    assert true == _returns(trained, "inference=oracle", "seed=0")[0]


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train", (*SMALL, "inference.run=fit"), "say policy.policy.input=state"),
        ("train", (*TRAIN, "inference.run=data"), "data"),
        ("train", (*TRAIN, "inference.run=oracle"), "learns nothing"),
        ("train", (*TRAIN, "inference.samples=4"), "samples = 4: expected 1 with combine=draw"),
        ("train", (*SMALL, "policy.policy.input=sate"), "expected one of obs, state, obs+state, joint"),
        ("fit", ("data=data", "inference=oracle"), "learns nothing"),
        ("fit", ("data=data", "inference=globedif"), "did you mean 'globediff'?"),
        ("evaluate", ("run=run", "inference=run"), "learned no state inference"),
        ("evaluate", ("run=run", "inference=joint"), "fed with the state"),
        ("evaluate", ("run=run", "inference=oracle", "samples=2"), "states are the true ones here"),
        ("train", (*SMALL, "inference=fit"), "fitted before; inference.run=fit"),
        ("play", ("run=run", "inference=run"), "learned no state inference"),
        (
            "play",
            ("policy=scripted", "env=toy/linear", "inference=fit"),
            "inference = 'fit': of no use with policy=scri",
        ),
    ],
)
def test_mistakes_are_one_line(trained: Path, command: str, words: tuple[str, ...], message: str) -> None:
    outcome = dima(command, *words, "out=nothing", cwd=trained)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert not (trained / "nothing").exists()


def test_missing_data_are_named(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "fit", tmp_path / "fit")
    outcome = dima("train", *TRAIN, "out=run", cwd=tmp_path)
    assert outcome.code == 2
    assert "say inference.rehearsal=0" in outcome.stderr
    assert dima("train", *TRAIN, "inference.rehearsal=0", "out=run", cwd=tmp_path).code == 0
