"""The world models beside DIMA, each through the commands: train, resume, export, fit and predict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dima.run.saved_run import open_run
from imagination.agent import PolicyAgent
from tests.support.commands import dima, final_tensors, rows

TOY = ("env=toy/linear", "env.episode_steps=20")
SMOKE = ("preset=smoke", "device=cpu", "num_threads=1")
TRAIN = (*TOY, *SMOKE, "trainer.checkpoint_every=40", "trainer.eval_every=40")
UNSURE = ("policy.uncertainty.action=truncate", "policy.uncertainty.signal=spread", "policy.uncertainty.threshold=1.1")
PREDICT = ("horizon=3", "segments=6", "samples=2", "gain_states=0", "resamples=100", "device=cpu", "num_threads=1")

MODELS = ("ensemble", "rssm", "transformer")


@pytest.fixture(scope="module", params=MODELS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 steps that nobody disturbed, in a folder named after the model."""
    folder = tmp_path_factory.mktemp("whole")
    words = (f"world_model={request.param}", *TRAIN, *UNSURE, "env_steps=80", f"out={request.param}")
    outcome = dima("train", *words, cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / request.param


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of 20 steps."""
    folder = tmp_path_factory.mktemp("collected")
    outcome = dima("collect", *TOY, "policy=ou", "episodes=6", "num_workers=1", "out=data", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "data"


def test_two_halves_equal_the_whole(run: Path, tmp_path: Path) -> None:
    outcome = dima("train", f"world_model={run.name}", *TRAIN, *UNSURE, "env_steps=40", "out=run", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    outcome = dima("train", "resume=run", "env_steps=80", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    whole, halves = final_tensors(run), final_tensors(tmp_path / "run")
    for component, tensors in whole.items():
        assert halves[component].keys() == tensors.keys(), component
        for name, tensor in tensors.items():
            assert torch.equal(halves[component][name], tensor), f"{component} {name}"
    assert rows(tmp_path / "run") == rows(run)
    shares = [row["imagination/known_share"] for row in rows(run) if "imagination/known_share" in row]
    assert any(0 < share < 1 for share in shares), "rollouts were cut"


def test_its_policy_is_exported_if_it_acts_on_present_observations(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.pt2"
    outcome = dima("export", f"run={run}", f"out={file}", cwd=tmp_path)
    if run.name == "rssm":
        assert outcome.code == 2
        assert "of RssmWorldModel depends on more than the present observations" in outcome.stderr
        return
    assert outcome.code == 0, outcome.stderr
    learner = open_run(str(run), "latest", "cpu", 1, "evaluate").learner
    agent = PolicyAgent(learner.model, learner.mappo.policy, torch.Generator(), deterministic=True)
    obs, state = torch.randn(5, learner.spec.num_agents, learner.spec.obs_dim), torch.zeros(5, learner.spec.state_dim)
    action, _ = agent.act(agent.begin(obs, state), obs, state, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(torch.export.load(file).module()(obs[:, None]), action, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_it_is_fitted_and_its_predictions_are_finite(model: str, data: Path, tmp_path: Path) -> None:
    fit = (f"data={data}", f"world_model={model}", *SMOKE, "updates=4", "held_out_batches=1", "out=fit")
    for words in (("fit", *fit), ("predict", "run=fit", f"data={data}", *PREDICT, "out=record")):
        outcome = dima(*words, cwd=tmp_path)
        assert outcome.code == 0, outcome.stderr
    (record,) = (tmp_path / "record").glob("*.json")
    numbers = list(_numbers(json.loads(record.read_text())))
    assert len(numbers) > 50
    assert all(math.isfinite(number) for number in numbers)


def _numbers(value: Any) -> Iterator[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value
