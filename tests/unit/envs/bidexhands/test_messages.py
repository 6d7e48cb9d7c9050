"""What a user's mistake, a missing file and a world that blows up are told."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.bidexhands import BiDexHandsBatch, hand, parallel_env
from envs.errors import EnvError
from tests.support.bidexhands import EVERY

ROOT = Path(__file__).parents[4]
NAMES = ", ".join(EVERY)

mujoco_only = pytest.mark.mujoco


def still(action_size: int = 20) -> np.ndarray:
    return np.zeros((1, 2, action_size))


def test_an_unknown_task_is_told_which_there_are() -> None:
    with pytest.raises(EnvError, match="there is no task 'juggle'; expected one of") as caught:
        BiDexHandsBatch("juggle")
    assert all(name in str(caught.value) for name in EVERY)
    with pytest.raises(EnvError, match="there is no task 'juggle'"):
        parallel_env("juggle")


@mujoco_only
def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(EnvError, match=r"bidexhands-mujoco/over: step\(\) of \[0\] before reset\(\)"):
        BiDexHandsBatch("over").step([0], still())
    batch = BiDexHandsBatch("over", 2)
    batch.reset([0], [0])
    with pytest.raises(EnvError, match=r"step\(\) of \[1\] before reset\(\)"):
        batch.step([0, 1], np.zeros((2, 2, 20)))


@mujoco_only
@pytest.mark.parametrize("rows", [[0, 0], [-1, 1], [2]])
def test_rows_that_are_named_twice_or_not_there_are_refused(rows: list[int]) -> None:
    batch = BiDexHandsBatch("over", 2)
    batch.reset([0, 1], [0, 1])
    with pytest.raises(EnvError, match=r"expected each at most once and in \[0, 2\)"):
        batch.step(rows, np.zeros((len(rows), 2, 20)))
    with pytest.raises(EnvError, match=r"expected each at most once and in \[0, 2\)"):
        batch.reset(rows, rows)


@mujoco_only
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"physics": "slow"}, "there is no physics 'slow'; expected one of fine, fast"),
        ({"episode_steps": 0}, "episode_steps = 0; expected at least 1"),
        ({"num_envs": 0}, "num_envs = 0; expected at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError, match=message):
        BiDexHandsBatch("over", **wrong)


@mujoco_only
def test_a_negative_seed_a_picture_of_nothing_and_a_misshapen_action_are_refused() -> None:
    env = parallel_env("over")
    with pytest.raises(EnvError, match=r"render\(\) before reset\(\)"):
        env.render()
    with pytest.raises(EnvError, match="seed = -1; expected at least 0"):
        env.batch.reset([0], [-1])
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"the action of left_hand has shape \[26\]; expected \[20\]"):
        env.step({"right_hand": np.zeros(20), "left_hand": np.zeros(26)})


@mujoco_only
def test_a_pettingzoo_step_before_reset_or_after_the_end_is_refused() -> None:
    env = parallel_env("over")
    actions = {agent: np.zeros(20, np.float32) for agent in env.possible_agents}
    with pytest.raises(EnvError, match=r"before reset\(\), or after the episode's end"):
        env.step(actions)
    env.reset(seed=0)
    for _ in range(75):
        env.step(actions)
    for given in (actions, {}):
        with pytest.raises(EnvError, match=r"before reset\(\), or after the episode's end"):
            env.step(given)


@mujoco_only
def test_a_hand_without_an_action_is_named() -> None:
    env = parallel_env("over")
    env.reset(seed=0)
    with pytest.raises(EnvError, match="actions for right_hand; expected one for each of right_hand, left_hand"):
        env.step({"right_hand": np.zeros(20, np.float32)})


@mujoco_only
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_no_number_is_refused_and_changes_nothing(value: float) -> None:
    batch = BiDexHandsBatch("over")
    batch.reset([0], [0])
    before = batch.simulation.world(0).qpos.copy()
    action = still()
    action[0, 1, 3] = value
    with pytest.raises(EnvError, match="bidexhands-mujoco/over: action holds a value that is not finite"):
        batch.step([0], action)
    np.testing.assert_array_equal(before, batch.simulation.world(0).qpos)
    batch.step([0], still())


@mujoco_only
@pytest.mark.parametrize("shape", [(2, 20), (1, 2, 26), (2, 2, 20), (1, 40), (1, 20, 2)])
def test_an_action_out_of_shape_is_refused(shape: tuple[int, ...]) -> None:
    batch = BiDexHandsBatch("over")
    batch.reset([0], [0])
    with pytest.raises(EnvError, match=r"action has shape .*; expected \[R, 2, A\] = \[1, 2, 20\]"):
        batch.step([0], np.zeros(shape))


@mujoco_only
@pytest.mark.parametrize("speed", [1e12, np.nan])
def test_a_world_that_blows_up_says_so_and_begins_anew(
    speed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    batch = BiDexHandsBatch("over", 2)
    batch.reset([0, 1], [0, 1])
    batch.simulation.world(1).qvel[:] = speed
    with pytest.raises(EnvError, match=r"over: the simulation became unstable at .* s of world 1 \(.*BAD") as caught:
        batch.step([0, 1], np.zeros((2, 2, 20)))
    assert "env.physics=fine" in caught.value.advice
    with pytest.raises(EnvError, match=r"step\(\) of \[1\] before reset\(\), or after the episode's end"):
        batch.step([1], still())  # MuJoCo has put it somewhere else, so its episode cannot go on
    batch.reset([1], [1])
    twin = BiDexHandsBatch("over")
    twin.reset([0], [1])
    np.testing.assert_array_equal(batch.step([1], still()).state, twin.step([0], still()).state)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `gymnasium_robotics` lie in a folder of its own, or nowhere; the hand is read anew."""
    hand._hand_xml.cache_clear()

    def lie_in(folder: Path | None) -> None:
        origin = None if folder is None else str(folder / "__init__.py")
        spec = None if origin is None else importlib.machinery.ModuleSpec("gymnasium_robotics", None, origin=origin)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: spec)

    yield lie_in
    hand._hand_xml.cache_clear()


@mujoco_only
def test_missing_files_are_named(package: Any, tmp_path: Path) -> None:
    package(tmp_path)
    with pytest.raises(EnvError, match=r"lacks .*shared\.xml, .*shared_asset\.xml, .*robot\.xml, .*stls/hand: install"):
        BiDexHandsBatch("over")
    (tmp_path / "envs/assets/hand").mkdir(parents=True)
    (tmp_path / "envs/assets/hand/shared.xml").write_text("<mujoco></mujoco>")
    with pytest.raises(EnvError, match=r"lacks \S*shared_asset\.xml, "):
        BiDexHandsBatch("over")


@mujoco_only
def test_a_missing_package_is_named(package: Any) -> None:
    package(None)
    with pytest.raises(EnvError, match="gymnasium-robotics is not installed.*pip install gymnasium-robotics"):
        BiDexHandsBatch("over")


@mujoco_only
@pytest.mark.parametrize(
    ("text", "message"), [("<xml/>", "holds no <mujoco> element"), ("<mujoco> </mujoco>", "0 cou")]
)
def test_another_hand_than_the_known_one_is_refused(package: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "envs/assets/hand").mkdir(parents=True)
    (tmp_path / "envs/assets/stls/hand").mkdir(parents=True)
    for name in ("shared.xml", "shared_asset.xml", "robot.xml"):
        (tmp_path / "envs/assets/hand" / name).write_text(text)
    package(tmp_path)
    with pytest.raises(EnvError, match=message):
        BiDexHandsBatch("over")


def test_the_port_loads_no_learning_and_no_other_simulator() -> None:
    script = (
        "import sys, envs.bidexhands\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'gymnasium_robotics', 'mujoco', 'pettingzoo', 'gymnasium'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@mujoco_only
def test_a_batch_and_a_pettingzoo_environment_do_without_torch_and_hydra() -> None:
    script = (
        "import sys, numpy as np\n"
        "from envs.bidexhands import BiDexHandsBatch, parallel_env\n"
        "batch = BiDexHandsBatch('over', 2, num_threads=2)\n"
        "batch.reset([0, 1], [0, 1]); batch.step([0, 1], np.zeros((2, 2, 20))); batch.close()\n"
        "assert not {'pettingzoo', 'gymnasium'} & set(sys.modules)\n"
        "env = parallel_env('over'); env.reset(seed=0); env.close()\n"
        "sys.exit(', '.join(sorted({'torch', 'hydra', 'gymnasium_robotics'} & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
