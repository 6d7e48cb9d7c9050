"""The examples do what they say: a newcomer's first copy must run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dima.run.optimize import PartOptimizer
from envs.collector import Collector
from envs.random_agent import RandomAgent
from envs.toy.linear import LinearSystem
from examples.custom_world_model.linear import LinearConfig, LinearWorldModel
from imagination.policy import PolicyConfig
from imagination.rollout import imagine
from tests.support.toy_systems import small_linear_config
from worldmodel.replay import Replay, ReplayConfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "custom_world_model"
TARGET = "examples.custom_world_model.linear.LinearConfig"
LINEAR_ENV = small_linear_config()


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository's root, as a newcomer would."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def require_scores(run: Path) -> None:
    scores = json.loads((run / "scores.json").read_text())
    assert [evaluation["env_steps"] for evaluation in scores["evaluations"]] == [0, 40]


def test_the_custom_environment_trains_a_team(tmp_path: Path) -> None:
    words = ("env_steps=40", "num_threads=1", f"out={tmp_path / 'run'}")
    result = python("-m", "examples.custom_environment", *words)
    assert result.returncode == 0, result.stderr
    require_scores(tmp_path / "run")
    assert "check_env found nothing wrong" in result.stdout
    assert "obs (4, 4, 4), actions (2, 2, 1)" in result.stdout


@pytest.mark.parametrize(
    "choice",
    [
        (f"world_model._target_={TARGET}", "world_model.learning_rate=0.01"),
        (f"hydra.searchpath=[file://{FOLDER}]", "world_model=linear"),
    ],
    ids=["by its class", "by its YAML"],
)
def test_the_custom_world_model_trains_a_team(choice: tuple[str, ...], tmp_path: Path) -> None:
    words = ("env=toy/linear", "preset=smoke", "device=cpu", "env_steps=40", "num_threads=1", f"out={tmp_path / 'run'}")
    result = python("-m", "dima.run.cli", "train", *choice, *words)
    assert result.returncode == 0, result.stderr
    require_scores(tmp_path / "run")


def test_the_custom_world_model_is_one_small_folder() -> None:
    files = [path for path in FOLDER.rglob("*") if path.suffix in (".py", ".yaml")]
    assert {path.name for path in files} == {"__init__.py", "linear.py", "linear.yaml"}
    assert sum(len(path.read_text().splitlines()) for path in files) <= 120
    packages = ("worldmodel", "dima", "imagination", "envs", "configs")
    inside = [path for package in packages for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".yaml")]
    assert inside
    assert not [path for path in inside if "custom_world_model" in path.read_text()]


@pytest.fixture(scope="module")
def data() -> Replay:
    generator = torch.Generator().manual_seed(0)
    spec = LINEAR_ENV.build().spec
    replay = Replay(spec, ReplayConfig(capacity=4000, recency="uniform"), num_streams=2, device="cpu")
    collector = Collector(LINEAR_ENV, num_envs=2, seed=0)
    for trajectory in collector.collect(RandomAgent(spec, generator), num_steps=3000):
        replay.append(trajectory)
    return replay


@pytest.fixture(scope="module")
def fitted(data: Replay) -> LinearWorldModel:
    """The example's model after a few hundred updates on random data."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = LinearConfig(learning_rate=1e-2, batch_size=256).build(data.spec)
    optimizer = PartOptimizer("dynamics", model.dynamics)
    for _ in range(400):
        optimizer.update(data.sample(256, 1, generator=generator), generator)
    optimizer.require_finite()
    return model


def test_the_custom_world_model_finds_the_true_dynamics(fitted: LinearWorldModel) -> None:
    system = LinearSystem(LINEAR_ENV)
    weight = fitted.dynamics.mean.weight.detach()[: LINEAR_ENV.state_dim, LINEAR_ENV.state_dim :]
    for agent in range(LINEAR_ENV.num_agents):
        truth = torch.from_numpy(system.action_gain(agent)).float()[:, 0]
        assert (weight[:, agent] - truth).norm() < 0.1 * truth.norm()
    noise = fitted.dynamics.log_std.exp()[: LINEAR_ENV.state_dim]
    torch.testing.assert_close(noise, torch.full_like(noise, LINEAR_ENV.noise_std), rtol=0.1, atol=0.0)


def test_a_policy_acts_inside_the_custom_world_model(fitted: LinearWorldModel, data: Replay) -> None:
    config = PolicyConfig(
        hidden_dims=(16,),
        activation="relu",
        input_layer_norm=True,
        head="gaussian",
        mean="linear",
        std="sigmoid",
        std_limit=0.5,
        std_logit_init=1.0,
        log_std_init=-1.0,
        log_std_min=-3.0,
        log_std_max=0.0,
    )
    policy = config.build(data.spec, fitted.actor_dim)
    context = data.sample_contexts(8, fitted.context_length, torch.Generator().manual_seed(0))

    rollouts = [imagine(fitted, policy, context, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]

    assert rollouts[0].reward.shape == (8, 5)
    assert torch.equal(rollouts[0].critic_view, rollouts[1].critic_view)
    assert not torch.equal(rollouts[0].critic_view, rollouts[2].critic_view)
    assert torch.equal(rollouts[0].critic_view[:, 0], context.state[:, -1])
