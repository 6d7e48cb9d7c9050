"""`dima export`: the file acts without this package as the policy does in it, and a mistake writes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dima.run.execution import choose_belief
from dima.run.saved_run import open_run
from imagination.agent import PolicyAgent
from tests.support.commands import POINT_TEAM, SMALL, dima

LOAD = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("configs", "dima", "envs", "imagination", "worldmodel", "tests"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
if COMPILED:
    act = torch._inductor.aoti_load_package("compiled.pt2")
    about = act.get_metadata()
else:
    about = {"metadata.json": ""}
    act = torch.export.load("policy.pt2", extra_files=about).module()
about = json.loads(about["metadata.json"])
assert about["compiled"] is COMPILED
assert about["env_id"] == "test/point-team" and about["inputs"] == {"history": ["B", 4, 2, 4]}, about
obs = torch.load("obs.pt", weights_only=True)
history = obs[0][:, None].repeat(1, about["history_steps"] + 1, 1, 1)
actions = []
for now in obs:
    history = torch.cat([history[:, 1:], now[:, None]], dim=1)
    actions.append(act(history))
torch.save(torch.stack(actions), "actions.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose policy is fed with the state, `fit` for its task and `other` for one of three agents."""
    folder = tmp_path_factory.mktemp("export")
    for command in (
        ("train", *SMALL, "policy.policy.input=obs+state", "out=run"),
        ("collect", *POINT_TEAM, "policy=ou", "episodes=4", "num_workers=1", "out=data"),
        ("collect", *POINT_TEAM, "env.num_agents=3", "policy=ou", "episodes=4", "num_workers=1", "out=data3"),
        ("fit", "data=data", "inference=mlp", "preset=smoke", "device=cpu", "updates=20", "out=fit"),
        ("fit", "data=data3", "inference=mlp", "preset=smoke", "device=cpu", "updates=5", "out=other"),
    ):
        outcome = dima(*command, cwd=folder)
        assert outcome.code == 0, outcome.stderr
    return folder


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_file_acts_by_itself_as_the_policy_does(
    folder: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "compiled.pt2" if compiled else "policy.pt2"
    outcome = dima("export", "run=run", "inference=fit", f"compile={compiled}", f"out={file}", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    assert f"wrote {file}: history ['B', 4, 2, 4] -> action [B,N,A]" in outcome.stdout
    obs = torch.randn(6, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    torch.save(obs, folder / "obs.pt")
    subprocess.run([sys.executable, "-c", f"COMPILED = {compiled}\n{LOAD}"], cwd=folder, check=True)
    actions = torch.load(folder / "actions.pt", weights_only=True)

    monkeypatch.chdir(folder)
    run = open_run("run", "latest", "cpu", 1, "evaluate")
    belief, _ = choose_belief(run, "fit", None, None)
    agent = PolicyAgent(run.learner.model, run.learner.mappo.policy, torch.Generator(), True, belief)
    carry = agent.begin(obs[0], torch.zeros(5, 2))
    for step, seen in enumerate(obs):
        expected, carry = agent.act(carry, seen, torch.zeros(5, 2), torch.full((5,), step == 0))
        torch.testing.assert_close(actions[step], expected, rtol=1e-5, atol=1e-5)

    again = dima("export", "run=run", "inference=fit", f"out={file}", cwd=folder)
    assert again.code == 2
    assert f"out = '{file}' is there already" in again.stderr


def test_machine_code_without_a_compiler_is_refused(folder: Path) -> None:
    words = ("run=run", "inference=fit", "compile=true", "out=x.pt2")
    outcome = dima("export", *words, cwd=folder, CXX="no-such-compiler")
    assert outcome.code == 2
    assert "needs a C++ compiler and 'no-such-compiler' is not there" in outcome.stderr
    assert not list(folder.glob("*x.pt2"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inference=oracle", "out=x.pt2"), "nobody knows the true state outside"),
        (("out=x.pt2",), "say how it is inferred: inference=RUN of dima fit"),
        (("inference=other", "out=x.pt2"), "was fitted on another task"),
        (("inference=run", "out=x.pt2"), "learned no state inference"),
        (("inference=fit", "out=x.pt"), "a file name that ends in .pt2"),
    ],
)
def test_mistakes_are_refused_and_write_nothing(folder: Path, words: tuple[str, ...], message: str) -> None:
    outcome = dima("export", "run=run", *words, cwd=folder)
    assert outcome.code == 2, outcome.stderr
    assert message in outcome.stderr
    assert not list(folder.glob("*x.pt*"))
