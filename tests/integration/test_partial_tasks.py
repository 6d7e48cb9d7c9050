"""Partially observable MAMuJoCo: who sees what, against the state itself."""

from __future__ import annotations

import numpy as np
import pytest

from envs.mamujoco import MamujocoConfig
from envs.play import play, random_actions
from tests.contracts.test_envs import load
from worldmodel.config import ConfigError

pytestmark = pytest.mark.mujoco


@pytest.mark.parametrize(
    ("name", "seen", "joints"),
    [
        # Columns of Gymnasium's observation: HalfCheetah has z, pitch, six angles; Ant z, a quaternion, eight angles.
        ("mamujoco/halfcheetah-2x3-partial", 1, {1: [5, 6, 7]}),
        ("mamujoco/ant-4x2-partial", 1, {1: [7, 8], 2: [9, 10], 3: [11, 12]}),
    ],
)
def test_all_but_one_see_their_own_angles_and_nothing_else(name: str, seen: int, joints: dict[int, list[int]]) -> None:
    env = load(name).build()
    recorded = play(env, 3, random_actions(env.spec, 20, 0))
    for agent, columns in joints.items():
        size = env.spec.obs_sizes[agent]
        assert size == len(columns)
        shown = np.sort(recorded.obs[:, agent, :size], axis=1)
        np.testing.assert_array_equal(shown, np.sort(recorded.state[:, columns], axis=1))
    seer = load(name, "env.seeing_agents=null").build()
    assert env.spec.obs_sizes[0] == seer.spec.obs_sizes[0] > max(env.spec.obs_sizes[1:])
    assert env.spec.env_id.endswith("-partial")


def test_where_velocities_are_hidden_all_see_every_position() -> None:
    env = load("mamujoco/halfcheetah-2x3-positions").build()
    recorded = play(env, 3, random_actions(env.spec, 20, 0))
    assert env.spec.env_id == "mamujoco/halfcheetah-2x3-positions"
    for agent, size in enumerate(env.spec.obs_sizes):
        # Gymnasium leaves the distance travelled out of the state; the package's agents see it.
        shown = {tuple(column) for column in recorded.obs[:, agent, :size].T}
        assert {tuple(column) for column in recorded.state[:, :8].T} <= shown
        assert not {tuple(column) for column in recorded.state[:, 8:].T} & shown
        assert size <= 9


def test_hidden_velocities_and_blind_agents_go_together() -> None:
    both = load("mamujoco/halfcheetah-2x3-partial", "env.observe_velocities=false").build()
    assert both.spec.env_id.endswith("-partial-positions")
    assert both.spec.obs_sizes[0] < load("mamujoco/halfcheetah-2x3-partial").build().spec.obs_sizes[0]
    assert both.spec.obs_sizes[1] == 3


def test_a_number_that_no_agent_has_is_named() -> None:
    config = load("mamujoco/halfcheetah-2x3-partial", "env.seeing_agents=[3]")
    assert isinstance(config, MamujocoConfig)
    with pytest.raises(ConfigError, match="names agent 3; there are agents 1 to 2"):
        config.build()


def test_a_full_observation_cannot_be_partial() -> None:
    with pytest.raises(Exception, match="null with obs_mode=full"):
        load("mamujoco/halfcheetah-2x3-partial", "env.obs_mode=full")
    with pytest.raises(Exception, match="observe_velocities: expected true with obs_mode=full|true with obs_mode=full"):
        load("mamujoco/halfcheetah-2x3-positions", "env.obs_mode=full")
