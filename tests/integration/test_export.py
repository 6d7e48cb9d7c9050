"""`dima export`: the file acts without this package as the policy does in it, and a mistake writes nothing."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dima.run.execution import choose_belief
from dima.run.saved_run import SavedRun, open_run
from imagination.agent import PolicyAgent
from imagination.execution import ExecutionPath
from tests.support.commands import POINT_TEAM, SMALL, dima
from tests.support.decision_noise import decision_noise

LOAD = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("configs", "dima", "envs", "imagination", "worldmodel", "tests"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
torch.set_num_threads(1)
if COMPILED:
    act = torch._inductor.aoti_load_package(FILE)
    about = act.get_metadata()
else:
    about = {"metadata.json": ""}
    act = torch.export.load(FILE, extra_files=about).module()
about = json.loads(about["metadata.json"])
assert about["compiled"] is COMPILED
assert about["env_id"] == "test/point-team" and about["inputs"]["history"] == ["B", 4, 2, 4], about
actions = []
for obs, noise in torch.load("episodes.pt", weights_only=True):
    history = obs[0][:, None].repeat(1, about["history_steps"] + 1, 1, 1)
    for now, drawn in zip(obs, noise):
        history = torch.cat([history[:, 1:], now[:, None]], dim=1)
        size = sum(about["noise_sizes"].values())
        assert drawn.shape == (len(now), size)
        actions.append(act(history, drawn) if size else act(history))
torch.save(actions, "actions.pt")
"""

BATCHES, STEPS = (1, 2, 5), 4

CASES = {
    "regression": ("fit",),
    "draw": ("diffusion",),
    "votes": ("diffusion", "combine=votes", "samples=3", "deterministic=false"),
}
"""The run that infers the state, and what else is said to `dima export`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, whose policy is fed with observations and the state; `fit` and `diffusion` for its task, `other` for
    another; `obs` and `joint`, whose policies need no state."""
    folder = tmp_path_factory.mktemp("export")
    for command in (
        ("train", *SMALL, "policy.policy.input=obs+state", "out=run"),
        ("train", *SMALL, "env_steps=30", "policy.policy.input=obs", "out=obs"),
        ("train", *SMALL, "env_steps=30", "policy.policy.input=joint", "out=joint"),
        ("collect", *POINT_TEAM, "policy=ou", "episodes=4", "num_workers=1", "out=data"),
        ("collect", *POINT_TEAM, "env.num_agents=3", "policy=ou", "episodes=4", "num_workers=1", "out=data3"),
        ("fit", "data=data", "inference=mlp", "preset=smoke", "device=cpu", "updates=20", "out=fit"),
        ("fit", "data=data", "inference=globediff", "preset=smoke", "device=cpu", "updates=5", "out=diffusion"),
        ("fit", "data=data3", "inference=mlp", "preset=smoke", "device=cpu", "updates=5", "out=other"),
    ):
        outcome = dima(*command, cwd=folder)
        assert outcome.code == 0, outcome.stderr
    return folder


@pytest.mark.parametrize("case", ["regression", pytest.param("draw", marks=pytest.mark.slow), "votes"])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_file_acts_by_itself_as_the_policy_does(
    folder: Path, compiled: bool, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the same noise, at any batch size: as machine code to fewer digits."""
    inference, *words = CASES[case]
    file = f"{case}-{compiled}.pt2"
    words = ["run=run", f"inference={inference}", *words, f"compile={compiled}", f"out={file}"]
    outcome = dima("export", *words, cwd=folder, limit_s=600)
    assert outcome.code == 0, outcome.stderr
    assert f"wrote {file}: history ['B', 4, 2, 4]" in outcome.stdout
    monkeypatch.chdir(folder)
    run = open_run("run", "latest", "cpu", 1, "evaluate")
    episodes, expected = zip(*(_act(run, case, batch) for batch in BATCHES), strict=True)
    torch.save(episodes, "episodes.pt")
    child = f"COMPILED, FILE = {compiled}, {file!r}\n{LOAD}"
    subprocess.run([sys.executable, "-c", child], cwd=folder, check=True)

    tolerance = 1e-4 if compiled else 1e-6
    for got, action in zip(torch.load("actions.pt", weights_only=True), itertools.chain(*expected), strict=True):
        torch.testing.assert_close(got, action, rtol=0.0, atol=tolerance)
    changed = torch.stack(_act(run, case, 5, seed=6)[1]) - torch.stack(expected[-1])
    assert (changed.abs().max() > 10 * tolerance) == (inference == "diffusion"), "the noise decides"


def _act(run: SavedRun, case: str, batch: int, seed: int = 5) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Observations [T,B,N,O] and noise [T,B,D] of one episode, and the T actions of the policy in this process."""
    inference, *words = CASES[case]
    votes, deterministic = "combine=votes" in words, "deterministic=false" not in words
    belief, _ = choose_belief(run, inference, "votes" if votes else "draw", 3 if votes else 1)
    policy = run.learner.mappo.policy
    agent = PolicyAgent(run.learner.model, policy, torch.Generator().manual_seed(seed), deterministic, belief)
    sizes = ExecutionPath(policy, nn.Identity(), belief, deterministic).noise
    assert (sizes.total > 0) == (inference == "diffusion")
    same = torch.Generator().manual_seed(seed)
    noise = torch.stack([decision_noise(sizes, 3 if votes else 1, 2, batch, same) for _ in range(STEPS)])
    obs = torch.randn(STEPS, batch, 2, 4, generator=torch.Generator().manual_seed(batch))
    carry, actions = agent.begin(obs[0], torch.zeros(batch, 2)), []
    for step, seen in enumerate(obs):
        action, carry = agent.act(carry, seen, torch.zeros(batch, 2), torch.full((batch,), step == 0))
        actions.append(action)
    return (obs, noise), actions


def test_a_file_that_is_there_is_not_replaced(folder: Path) -> None:
    (folder / "there.pt2").write_bytes(b"precious")
    again = dima("export", "run=run", "inference=fit", "out=there.pt2", cwd=folder)
    assert again.code == 2
    assert "out = 'there.pt2' is there already" in again.stderr
    assert (folder / "there.pt2").read_bytes() == b"precious"


def test_a_file_for_one_agent_acts_as_the_team_s(folder: Path) -> None:
    histories = torch.randn(3, 4, 2, 4, generator=torch.Generator().manual_seed(0))
    actions = []
    for words in ((), ("agent=1",)):
        outcome = dima("export", "run=run", "inference=fit", *words, f"out=one{len(words)}.pt2", cwd=folder)
        assert outcome.code == 0, outcome.stderr
        history = histories[:, :, 1] if words else histories
        actions.append(torch.export.load(folder / f"one{len(words)}.pt2").module()(history))
    assert "history ['B', 4, 4] -> action ['B', 1]" in outcome.stdout
    torch.testing.assert_close(actions[1], actions[0][:, 1])


@pytest.mark.parametrize(("kind", "reads"), [("obs", "own"), ("joint", "joint")])
def test_the_file_says_whose_observations_it_needs(folder: Path, kind: str, reads: str) -> None:
    outcome = dima("export", f"run={kind}", f"out={kind}.pt2", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    about = {"metadata.json": ""}
    torch.export.load(folder / f"{kind}.pt2", extra_files=about)
    said = json.loads(about["metadata.json"])
    assert (said["actor_input"], said["reads"], said["auxiliary"]) == (kind, reads, None)


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
        (("inference=fit", "agent=2", "out=x.pt2"), "agent = 2: expected a number from 0 to 1"),
        (("run=joint", "agent=0", "out=x.pt2"), "depends on the others' observations"),
    ],
)
def test_mistakes_are_refused_and_write_nothing(folder: Path, words: tuple[str, ...], message: str) -> None:
    run = () if words[0].startswith("run=") else ("run=run",)
    outcome = dima("export", *run, *words, cwd=folder)
    assert outcome.code == 2, outcome.stderr
    assert message in outcome.stderr
    assert not list(folder.glob("*x.pt*"))
