"""MAMuJoCo for real: actions reach the right actuators, PettingZoo's own tests, resume, pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from pettingzoo.test import parallel_api_test, parallel_seed_test

from envs.base import EnvError
from envs.collector import Collector
from envs.mamujoco import MamujocoConfig, known_warnings_silenced, make_parallel_env, render_offscreen
from envs.play import play, random_actions
from envs.random_agent import RandomAgent
from worldmodel.config import ConfigError

pytestmark = pytest.mark.mujoco

ROOT = Path(__file__).parents[2]

# Which joints each agent drives, in the order of its actions: for partitions of gymnasium-robotics as it lists them,
# for the others as HARL labels them.
JOINTS: dict[str, list[str]] = {
    "halfcheetah-2x3": ["bthigh bshin bfoot", "fthigh fshin ffoot"],
    "halfcheetah-3x2": ["bfoot bshin", "bthigh ffoot", "fshin fthigh"],
    "halfcheetah-6x1": ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"],
    "walker2d-2x3": ["foot_joint leg_joint thigh_joint", "foot_left_joint leg_left_joint thigh_left_joint"],
    "walker2d-3x2": ["foot_joint leg_joint", "thigh_joint foot_left_joint", "leg_left_joint thigh_left_joint"],
    "walker2d-6x1": [
        "foot_joint",
        "leg_joint",
        "thigh_joint",
        "foot_left_joint",
        "leg_left_joint",
        "thigh_left_joint",
    ],
    "ant-2x4": ["hip_1 ankle_1 hip_2 ankle_2", "hip_3 ankle_3 hip_4 ankle_4"],
    "ant-2x4d": ["hip_1 ankle_1 hip_4 ankle_4", "hip_2 ankle_2 hip_3 ankle_3"],
    "ant-4x2": ["hip_1 ankle_1", "hip_2 ankle_2", "hip_3 ankle_3", "hip_4 ankle_4"],
    "ant-8x1": ["hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3", "hip_4", "ankle_4"],
    "humanoid-9-8": [
        "abdomen_x abdomen_y abdomen_z "
        "right_shoulder1 right_shoulder2 right_elbow left_shoulder1 left_shoulder2 left_elbow",
        "right_hip_x right_hip_y right_hip_z right_knee left_hip_x left_hip_y left_hip_z left_knee",
    ],
    "humanoid-17x1": [
        "left_shoulder1",
        "left_shoulder2",
        "abdomen_x",
        "abdomen_y",
        "abdomen_z",
        "right_shoulder1",
        "right_shoulder2",
        "right_elbow",
        "left_elbow",
        "left_hip_x",
        "left_hip_y",
        "left_hip_z",
        "right_hip_x",
        "right_hip_y",
        "right_hip_z",
        "right_knee",
        "left_knee",
    ],
}


def load(name: str, *overrides: str) -> MamujocoConfig:
    """The config object that `env=mamujoco/NAME` gives, with `overrides`."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        composed = compose(overrides=[f"+env=mamujoco/{name}", *overrides])
    return instantiate(composed.env, _convert_="object")


def actuators_by_joint(body: Any) -> dict[str, int]:
    """Which actuator MuJoCo's own model attaches to each joint."""
    model = body.unwrapped.model
    return {model.joint(model.actuator_trnid[index, 0]).name: index for index in range(model.nu)}


@pytest.mark.parametrize("name", JOINTS)
def test_actions_reach_the_actuators_of_the_listed_joints(name: str) -> None:
    config = load(name)
    env = config.build()
    with known_warnings_silenced():
        body: Any = gymnasium.make(f"{config.scenario}-v5", disable_env_checker=True)
    actuator = actuators_by_joint(body)
    half_range = body.action_space.high.astype(np.float64)
    observed = env.reset(seed=11)
    raw, _ = body.reset(seed=11)
    np.testing.assert_array_equal(observed.state, raw.astype(np.float32))
    for action in random_actions(env.spec, 10, 0):
        control = np.full(len(actuator), np.nan)
        for agent, joints in enumerate(JOINTS[name]):
            for index, joint in enumerate(joints.split()):
                control[actuator[joint]] = action[agent, index]
        # The same rounding to the Box's float32 as in the adapter, so that states can be compared bit for bit.
        raw, reward, terminated, truncated, _ = body.step((control * half_range).astype(np.float32).astype(np.float64))
        result = env.step(action)
        np.testing.assert_array_equal(result.state, raw.astype(np.float32))
        assert (result.reward, result.terminated, result.truncated) == (reward, terminated, truncated)
        if terminated:
            break
    body.close()


@pytest.mark.parametrize("name", ["halfcheetah-2x3", "halfcheetah-3x2", "walker2d-6x1", "ant-8x1", "humanoid-17x1"])
def test_pettingzoo_accepts_the_environment_underneath(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(name)
    parallel_api_test(make_parallel_env(config), num_cycles=50)
    parallel_seed_test(lambda: make_parallel_env(config), num_cycles=20)
    assert "Passed Parallel API test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("halfcheetah-3x2", (10, 12, 11)),
        ("halfcheetah-6x1", (9, 9, 8, 9, 9, 8)),
    ],
)
def test_local_observations_have_the_sizes_measured_elsewhere(name: str, sizes: tuple[int, ...]) -> None:
    assert load(name, "env.obs_mode=local").build().spec.obs_sizes == sizes


def test_a_wider_view_shows_one_angle_more_for_each_joint_in_it() -> None:
    def width(reach: int) -> int:
        return load("halfcheetah-6x1", "env.obs_mode=local", f"env.agent_obsk={reach}").build().spec.obs_sizes[0]

    # Agent 0 drives bthigh; its neighbours are bshin and fthigh, theirs bfoot and fshin; one angle of each is seen.
    assert [width(reach) - width(0) for reach in (1, 2)] == [2, 4]


def test_standardised_observations_are_those_of_the_published_code() -> None:
    env, plain = (load("ant-2x4", f"env.standardize_obs={flag}").build() for flag in ("true", "false"))
    actions = random_actions(env.spec, 3, 0)
    obs, raw = play(env, 0, actions).obs.astype(np.float64), play(plain, 0, actions).obs.astype(np.float64)
    expected = (raw - raw.mean(-1, keepdims=True)) / raw.std(-1, keepdims=True)
    np.testing.assert_allclose(obs, expected, atol=1e-5)


def test_ant_without_contact_forces_has_27_numbers_and_no_contact_cost() -> None:
    for mode in ("full", "local"):
        env = load("ant-4x2", "env.contact_forces=false", f"env.obs_mode={mode}").build()
        env.reset(0)
        results = [env.step(np.ones((4, 2), np.float32)) for _ in range(5)]
        assert env.spec.state_dim == 27
        assert all(result.info["reward_contact"] == 0 for result in results)
    with_forces = load("ant-4x2").build()
    assert with_forces.spec.state_dim == 105


def test_a_fall_terminates_and_the_time_limit_truncates() -> None:
    walker = load("walker2d-2x3").build()
    fall = play(walker, 0, np.ones((200, 2, 3), np.float32))
    assert (fall.terminated, fall.truncated) == (True, False)
    cheetah = load("halfcheetah-2x3", "env.episode_steps=15").build()
    timeout = play(cheetah, 0, random_actions(cheetah.spec, 30, 0))
    assert (timeout.length, timeout.terminated, timeout.truncated) == (15, False, True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.partition=4x4"], "HalfCheetah has no partition '4x4'"),
        (["env.joints=[[bthigh,bshin],[bfoot]]"], "expected each joint of HalfCheetah exactly once: bthigh, bshin"),
        (["env.joints=[[bthigh,bshin,bfoot],[fthigh,fshin,tail]]"], "exactly once"),
        (["env.contact_forces=false"], "contact_forces = False: expected true for any body but Ant"),
        (["env.scenario=Horse"], "expected one of Ant, CoupledHalfCheetah"),
    ],
)
def test_a_wrong_task_is_explained(overrides: list[str], message: str) -> None:
    # Hydra wraps what a config's constructor raises; the message survives in it.
    with pytest.raises(Exception, match=message) as caught:
        load("halfcheetah-2x3", *overrides).build()
    error = caught.value
    assert isinstance(error, ConfigError) or isinstance(error.__cause__, ConfigError)


def test_the_joints_of_a_custom_partition_need_no_code() -> None:
    env = load("halfcheetah-2x3", "env.partition=back-front", "env.joints=[[bfoot],[bthigh,bshin,fthigh,fshin,ffoot]]")
    spec = env.build().spec
    assert (spec.env_id, spec.action_sizes) == ("mamujoco/halfcheetah-back-front", (1, 5))


@pytest.mark.parametrize("steps", [26, 130])
def test_a_collector_goes_on_in_mid_episode_bit_for_bit(steps: int) -> None:
    config = load("halfcheetah-2x3", "env.episode_steps=50")
    collector = Collector(config, 2, seed=0)
    generator = torch.Generator().manual_seed(0)
    agent = RandomAgent(collector.spec, generator)
    collector.collect(agent, num_steps=steps)
    saved, chance = collector.state_dict(), generator.get_state().clone()
    expected = collector.collect(agent, num_steps=100)
    loaded = Collector(config, 2, seed=0)
    loaded.load_state_dict(saved)
    generator.set_state(chance)
    for before, after in zip(expected, loaded.collect(agent, num_steps=100), strict=True):
        assert (before.stream, before.is_start, before.seed) == (after.stream, after.is_start, after.seed)
        for (name, one), (_, other) in zip(before.tensors(), after.tensors(), strict=True):
            assert torch.equal(one, other), name


def test_a_picture_follows_the_body_and_drawing_changes_nothing() -> None:
    env = load("halfcheetah-2x3", "env.render_width=160", "env.render_height=120").build()
    env.reset(0)
    try:
        first = env.render()
    except EnvError as error:
        pytest.skip(str(error))
    assert (first.shape, first.dtype) == ((120, 160, 3), np.uint8)
    assert first.std() > 5  # something is drawn
    actions = random_actions(env.spec, 10, 0)
    env.reset(0)
    drawn, frame = [], first
    for action in actions:
        drawn.append(env.step(action).state)
        frame = env.render()
    np.testing.assert_array_equal(np.stack(drawn), play(load("halfcheetah-2x3").build(), 0, actions).state[1:])
    assert (frame != first).any()
    env.close()


@pytest.mark.slow
def test_using_a_task_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    """No notice of a library reaches the user, and MuJoCo leaves no log file in the folder."""
    program = (
        "from envs.mamujoco import MamujocoConfig\n"
        "config = MamujocoConfig(scenario='HalfCheetah', partition='2x3', joints=None, obs_mode='local',\n"
        "    agent_obsk=1, standardize_obs=False, episode_steps=5, contact_forces=True,\n"
        "    render_width=64, render_height=64)\n"
        "env = config.build()\n"
        "env.reset(0)\n"
        "env.step(__import__('numpy').zeros((2, 3), 'float32'))\n"
        "env.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["halfcheetah-2x3", "ant-4x2"])
def test_camera_follows_the_body(name: str) -> None:
    """Thirty metres from the start the picture still shows a body: its orange is the only warm colour in the scene."""
    env = make_parallel_env(load(name, "env.render_width=160", "env.render_height=120"))
    env.reset(seed=0)
    single = env.single_agent_env.unwrapped
    qpos = single.data.qpos.copy()
    qpos[0] += 30.0
    single.set_state(qpos, single.data.qvel)
    try:
        frame = render_offscreen(env).astype(int)
    except EnvError as error:
        pytest.skip(str(error))
    env.close()
    warm = (frame[..., 0] > frame[..., 2] + 30).mean()
    assert warm > 0.005
