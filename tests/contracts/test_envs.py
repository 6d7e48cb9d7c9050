"""What every environment in configs/env must keep, whatever it simulates."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from envs.check import check_env
from envs.play import play, random_actions
from worldmodel.config import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"

PAPER_TASKS = [
    "mamujoco/ant-2x4",
    "mamujoco/ant-4x2",
    "mamujoco/halfcheetah-2x3",
    "mamujoco/halfcheetah-3x2",
    "mamujoco/halfcheetah-6x1",
    "mamujoco/walker2d-2x3",
    "mamujoco/walker2d-3x2",
]
"""Table 2 of DIMA."""

TEMPLATES = {"mamujoco/base", "bidexhands-mujoco/base", "custom"}  # made complete by other files or by the user
NEEDS_A_SIMULATOR_OF_ITS_OWN = ("isaacgym/", "smax/", "smacv2/")  # which few machines have; tested beside the adapters
BEGINS_ALWAYS_ALIKE = {
    f"bidexhands-mujoco/{task}" for task in ("bottle-cap", "door-open-inward", "door-open-outward", "pen", "scissors")
}
"""As the originals do: of these `dima check-env` says that seeds make no difference, and nothing else."""
NEEDS_OLD_MUJOCO = "mamujoco/coupledhalfcheetah-1p1"
# Any environment that keeps PettingZoo's interface can stand for a user's own.
USERS_OWN = [
    "env.make=gymnasium_robotics.mamujoco_v1.parallel_env",
    "+env.kwargs.scenario=Swimmer",
    "+env.kwargs.agent_conf=2x1",
    "env.env_id=pettingzoo",
]


def _names() -> list[str]:
    paths = sorted((CONFIGS / "env").rglob("*.yaml"))
    names = [str(path.relative_to(CONFIGS / "env").with_suffix("")) for path in paths]
    return [name for name in names if name not in TEMPLATES and not name.startswith(NEEDS_A_SIMULATOR_OF_ITS_OWN)]


def load(name: str, *overrides: str) -> Any:
    """The config object that `env=NAME` gives, with `overrides`."""
    own = USERS_OWN if name == "pettingzoo" else []
    with initialize_config_dir(str(CONFIGS), version_base=None):
        composed = compose(overrides=[f"+env={name}", *own, *overrides])
    return instantiate(composed.env, _convert_="object")


def parametrize(names: list[str]) -> Any:
    """Over environments; those that need the simulator are marked."""
    marked = [pytest.param(name, marks=[] if name.startswith("toy/") else [pytest.mark.mujoco]) for name in names]
    return pytest.mark.parametrize("name", marked)


EVERY = parametrize([name for name in _names() if name != NEEDS_OLD_MUJOCO])
CHECKED_QUICKLY = [name for name in _names() if name.startswith("toy/")] + [
    "pettingzoo",
    "mamujoco/ant-4x2",
    "mamujoco/halfcheetah-3x2",
    "mamujoco/humanoid-17x1",
    "mamujoco/walker2d-2x3",
    "bidexhands-mujoco/over",
    "bidexhands-mujoco/bottle-cap",
]


def test_the_tasks_of_the_paper_are_there() -> None:
    assert {*PAPER_TASKS, "mamujoco/humanoid-17x1"} <= set(_names())


@EVERY
def test_the_spec_names_the_task_and_can_be_written_as_json(name: str) -> None:
    spec = load(name).build().spec
    assert spec.env_id == name or spec.env_id.startswith(f"{name}-")
    again = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert again["obs_sizes"] == list(spec.obs_sizes)
    if name.startswith(("mamujoco/", "bidexhands-mujoco/")):
        versions = dict(spec.versions)
        assert versions["mujoco"] == importlib.metadata.version("mujoco")
        assert versions["gymnasium-robotics"] == importlib.metadata.version("gymnasium-robotics")
    if name.startswith("bidexhands-mujoco/"):
        assert spec.env_id == name
        assert dict(spec.versions)["physics"].startswith("fine-")
    if name.startswith("mamujoco/"):
        assert {"gymnasium-robotics", "body"} <= dict(spec.versions).keys()


@EVERY
def test_observations_keep_the_masks_of_the_spec(name: str) -> None:
    env = load(name).build()
    spec = env.spec
    played = play(env, 3, random_actions(spec, 5, 0))  # raises where shape, type or finiteness is wrong
    assert not played.obs[:, ~spec.obs_mask().numpy()].any()
    assert spec.appends_agent_id
    ids = played.obs[..., -spec.num_agents :]
    np.testing.assert_array_equal(ids, np.broadcast_to(np.eye(spec.num_agents), ids.shape))


@EVERY
def test_a_pickled_config_builds_the_same_environment(name: str) -> None:
    config = load(name)
    env, twin = config.build(), pickle.loads(pickle.dumps(config)).build()
    actions = random_actions(env.spec, 5, 0)
    assert env.spec == twin.spec
    assert play(env, 1, actions).difference(play(twin, 1, actions)) is None


def findings(name: str) -> list[tuple[str, str]]:
    """Check and severity of everything that `dima check-env` says, without what is known and meant."""
    found = [(finding.check, finding.severity) for finding in check_env(load(name))]
    if name in BEGINS_ALWAYS_ALIKE:
        found.remove(("seeds", "warning"))
    return found


@parametrize(CHECKED_QUICKLY)
def test_nothing_is_found_wrong(name: str) -> None:
    assert findings(name) == []


@pytest.mark.slow
@parametrize([name for name in _names() if name not in (NEEDS_OLD_MUJOCO, *CHECKED_QUICKLY)])
def test_nothing_is_found_wrong_in_the_other_tasks(name: str) -> None:
    assert findings(name) == []


MAMUJOCO = [name for name in _names() if name.startswith("mamujoco/") and name != NEEDS_OLD_MUJOCO]


@pytest.mark.mujoco
@pytest.mark.parametrize(
    "name", [name for name in _names() if name.startswith("mamujoco/") and name != NEEDS_OLD_MUJOCO]
)
def test_local_and_full_mode_show_the_same_world(name: str) -> None:
    # Who sees less than others does so in local mode only; nobody is blind in the full one.
    all_see = ["env.seeing_agents=null", "env.observe_velocities=true"]
    full, local = load(name, "env.obs_mode=full", *all_see).build(), load(name, "env.obs_mode=local").build()
    spec = full.spec
    actions = random_actions(spec, 5, 0)
    seen, seen_locally = play(full, 2, actions), play(local, 2, actions)
    np.testing.assert_array_equal(seen.state, seen_locally.state)
    np.testing.assert_array_equal(seen.reward, seen_locally.reward)
    # Full: the state and the id, nothing else.
    for agent in range(spec.num_agents):
        identity = np.broadcast_to(np.eye(spec.num_agents, dtype=np.float32)[agent], (6, spec.num_agents))
        np.testing.assert_array_equal(seen.obs[:, agent], np.concatenate([seen.state, identity], axis=1))
    # Local: real vectors, of which each agent has at least its own joint's angle and velocity, or two joints' angles.
    assert min(local.spec.obs_sizes) >= 2
    assert not seen_locally.obs[:, ~local.spec.obs_mask().numpy()].any()


@pytest.mark.mujoco
def test_a_body_that_this_mujoco_cannot_load_says_so() -> None:
    version = importlib.metadata.version("mujoco")
    if tuple(int(part) for part in version.split(".")[:2]) <= (3, 5):
        assert load(NEEDS_OLD_MUJOCO).build().spec.num_agents == 2
        return
    with pytest.raises(
        ConfigError, match=rf"CoupledHalfCheetah does not load on mujoco {version}.*install mujoco<=3.5.0"
    ):
        load(NEEDS_OLD_MUJOCO).build()
