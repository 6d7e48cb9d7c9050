"""The tasks of Bi-DexHands as they are chosen, found and started; what is missing is said in one line.

`isaacgym` and `bidexhands` themselves are stood in for by packages that check how they are called.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dima.run.cli import main
from envs.base import EnvError
from envs.bidexhands import TASKS
from envs.isaacgym import IsaacGymConfig, activated
from envs.isaacgym_vector import IsaacGymVec
from tests.support.isaacgym_served import DEFAULTS
from tests.support.isaacgym_stand_in import built, install
from worldmodel.config import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs" / "env" / "isaacgym"


def config(**changes: Any) -> IsaacGymConfig:
    return IsaacGymConfig(**{**DEFAULTS, **changes})


def test_every_task_of_the_port_can_be_chosen_by_the_same_name() -> None:
    tasks = {path.stem: yaml.safe_load(path.read_text()).get("task") for path in CONFIGS.glob("*.yaml")}
    assert tasks == {"base": "???"} | {task.name: task.original for task in TASKS.values()}
    for name, original in tasks.items():
        assert name == "base" or config(task=original).env_id == f"isaacgym/{name}"
    assert config(task="ShadowHandKettle").env_id == "isaacgym/ShadowHandKettle"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "../ShadowHandOver"}, "task = '../ShadowHandOver': expected a name like ShadowHandOver"),
        ({"device": "gpu"}, "device = 'gpu': expected cpu or cuda:N"),
        ({"standardize_obs": True}, "standardize_obs = True: expected false with obs_mode=local"),
        ({"timeout_s": 0}, "timeout_s = 0.0: expected a number above 0"),
        ({"start_timeout_s": -1}, "start_timeout_s = -1.0: expected a number above 0"),
        ({"obs_mode": "all"}, "expected one of local, full"),
    ],
)
def test_values_that_cannot_be_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(**changes)


def test_without_an_interpreter_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ISAACGYM_PYTHON", raising=False)
    monkeypatch.delenv("DIMA_DEBUG", raising=False)
    assert main(["train", "env=isaacgym/door-open-outward"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("Isaac Gym", "Bi-DexHands", "ISAACGYM_PYTHON", "env=bidexhands-mujoco/door-open-outward"):
        assert part in line


def test_an_interpreter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISAACGYM_PYTHON", "/nowhere/python3.8")
    with pytest.raises(ConfigError, match=r"no interpreter /nowhere/python3.8 .*env=bidexhands-mujoco/over"):
        config().build()
    with pytest.raises(ConfigError, match=r"no interpreter elsewhere \(env.python, or ISAACGYM_PYTHON\)$"):
        config(task="ShadowHandKettle", python="elsewhere").build()


def test_an_interpreter_without_isaac_gym_is_named() -> None:
    with pytest.raises(ConfigError, match=r"has no package 'isaacgym' .*env=bidexhands-mujoco/over"):
        config(python=sys.executable).build()


def test_the_worker_s_environment_is_that_of_its_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "KEPT"):
        monkeypatch.setenv(name, "/ours")
    python = tmp_path / "bin" / "python"
    environment = activated(python)
    assert not {"PYTHONPATH", "PYTHONHOME"} & environment.keys()
    assert environment["PATH"] == os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    assert (environment["KEPT"], environment["LD_LIBRARY_PATH"]) == ("/ours", "/ours")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libpython3.8.so.1.0").touch()
    assert activated(python)["LD_LIBRARY_PATH"] == os.pathsep.join(["/ours", str(tmp_path / "lib")])


def test_it_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(config())) == config()


def oldest_python() -> str:
    """The oldest interpreter from 3.7 on that has what the worker needs; this one where there is no other."""
    for minor in range(7, sys.version_info.minor):
        python = shutil.which(f"python3.{minor}")
        if python and subprocess.run([python, "-c", "import numpy, yaml"], capture_output=True, check=False).returncode:
            continue
        if python:
            return python
    return sys.executable


@pytest.mark.parametrize(("num_envs", "tensors"), [(1, False), (2, True)])
def test_bidexhands_is_made_and_stepped_as_it_expects(tmp_path: Path, num_envs: int, tensors: bool) -> None:
    """The stand-in shows world, episode, step and the action's first number, and prints into every stream meanwhile."""
    python = install(tmp_path, sys.executable if tensors else oldest_python(), tensors=tensors)
    vec = config(task="ShadowHandBottleCap", python=str(python)).build_vector(num_envs)
    told = json.loads(built(tmp_path).read_text())
    expected = {"task": "ShadowHandBottleCap", "algo": "mappo", "num_envs": vec.worker.hello.sizes.worlds}
    devices = {"headless": True, "pipeline": "cpu", "sim_device": "cpu", "rl_device": "cpu"}
    assert told["args"] | expected | devices == told["args"]
    assert told["make"] == ["ShadowHandBottleCap", "mappo"]
    assert told["settings"]["observationType"] == "full_state"  # the file says point_cloud
    _play_stand_in(vec)
    vec.close()


def test_a_gpu_is_asked_for_by_its_number(tmp_path: Path) -> None:
    config(task="ShadowHandBottleCap", python=str(install(tmp_path, sys.executable)), device="cuda:1").build().close()
    asked = json.loads(built(tmp_path).read_text())["args"]
    assert (asked["sim_device"], asked["rl_device"], asked["pipeline"]) == ("cuda:1", "cuda:1", "gpu")


def _play_stand_in(vec: IsaacGymVec) -> None:
    """Whole episodes with every step in them, whether they fail or time runs out, and nothing in between."""
    num_envs = vec.num_envs
    assert vec.spec.episode_steps == 5
    rows = list(range(num_envs))
    last = [observed.state for observed in vec.reset(rows, [7] * num_envs)]
    fails = 0
    for step in range(40):
        action = np.full((num_envs, 2, 3), 0.5, np.float32)
        action[:, 1] = -0.25
        if step % 7 == 3:
            action[0, 0, 0] = 1.0  # the stand-in fails then
        for row, result in enumerate(vec.step(rows, action)):
            world, episode, count = last[row][:3]
            np.testing.assert_array_equal(result.state, [world, episode, count + 1, action[row, 0, 0], -0.25])
            np.testing.assert_array_equal(result.obs[1, :4], [world, episode, count + 1, -0.25])
            assert result.reward == count + 1
            assert result.truncated == (count + 1 == 6)
            assert result.terminated == (count + 1 < 6 and action[row, 0, 0] == 1.0)
            fails += result.terminated
            last[row] = result.state
            if result.terminated or result.truncated:
                last[row] = vec.reset([row], [8])[0].state
                assert last[row][2] == 1
                assert 0.0 < abs(last[row][3]) <= 0.01
    assert fails > 0


def test_why_bidexhands_quits_is_repeated(tmp_path: Path) -> None:
    python = install(tmp_path, sys.executable)
    with pytest.raises(EnvError, match=r"isaacgym/pen: SystemExit while starting: .*\*\*\* Failed to create sim"):
        config(task="ShadowHandPen", python=str(python)).build()


def test_a_task_that_bidexhands_lacks_is_named(tmp_path: Path) -> None:
    python = install(tmp_path, sys.executable)
    with pytest.raises(EnvError, match=r"FileNotFoundError while starting: .*cfg/ShadowHandOver.yaml"):
        config(python=str(python)).build()
