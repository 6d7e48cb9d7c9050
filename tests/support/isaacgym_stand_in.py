"""Packages that stand in for `isaacgym` and `bidexhands` where these cannot be installed, to test how they are called.

Written from what the originals do with the command line, the working directory, their settings and the order of
imports; in place of physics they count. Nothing of the originals' code is here. They run on Python 3.7.
"""

from __future__ import annotations

from pathlib import Path

_ISAACGYM = """
import sys
if "torch" in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules")
print("Importing module 'gym_38'")
"""

_BIDEXHANDS = '''
import argparse, importlib, json, os, sys
import isaacgym
import numpy as np
import yaml
HERE = os.path.dirname(os.path.abspath(__file__))
torch = importlib.import_module("torch") if TENSORS else None

def tensor(array):
    return torch.from_numpy(array) if torch else array

def plain(array):
    return array.numpy() if torch else array

class Task:
    def __init__(self, worlds, steps):
        self.max_episode_length = steps
        self.reset_buf = tensor(np.ones(worlds, np.int64))
        self.progress_buf = tensor(np.zeros(worlds, np.int64))
        self.successes = tensor(np.zeros(worlds, np.float32))

class Env:
    """Shows the world, the episode in it, the step in that and the first number of the agent's action."""
    def __init__(self, worlds, steps, device):
        self.task = Task(worlds, steps)
        self.episode = np.full(worlds, -1)
        self.num_agents, self.num_environments, self.num_actions = 2, worlds, 3
        self.num_observations, self.nums_share_observations = 4, 5
        if torch:
            self.rl_device = device

    def step(self, actions):
        if torch:
            assert isinstance(actions, torch.Tensor) and actions.dtype == torch.float32
        print("stepping")
        os.write(1, b"DIMA is said here too")
        task, actions = self.task, np.stack([plain(actions[0]), plain(actions[1])])
        again = plain(task.reset_buf) != 0
        self.episode[again] += 1
        task.progress_buf[np.flatnonzero(again).tolist()] = 0
        task.progress_buf += 1
        counted = plain(task.progress_buf)
        failed = actions[0, :, 0] == 1.0
        task.reset_buf[:] = tensor((failed | (counted >= task.max_episode_length)).astype(np.int64))
        state = np.stack([np.arange(len(counted)), self.episode, counted, actions[0, :, 0], actions[1, :, 0]], 1)
        state = state.astype(np.float32)
        obs = np.stack([state[:, [0, 1, 2, 3]], state[:, [0, 1, 2, 4]]], 1)
        reward = np.repeat(counted[:, None, None].astype(np.float32), 2, 1)
        done = np.repeat(plain(task.reset_buf)[:, None], 2, 1)
        both = np.repeat(state[:, None], 2, 1)
        return tensor(obs), tensor(both), tensor(reward), tensor(done), None, None

    def reset(self):
        shape = (2, self.num_environments, self.num_actions)
        obs, state = self.step(tensor((0.01 * (1 - 2 * np.random.rand(*shape))).astype(np.float32)))[:2]
        return obs, state, None

def make(task_name, algo):
    parser = argparse.ArgumentParser()
    for name, kind in (("num_envs", int), ("sim_device", str), ("rl_device", str), ("pipeline", str), ("task", str),
                       ("algo", str), ("cfg_env", str)):
        parser.add_argument("--" + name, type=kind)
    parser.add_argument("--headless", action="store_true")
    args = parser.parse_args()
    with open(os.path.join(os.getcwd(), "cfg", algo, "config.yaml")) as file:
        yaml.safe_load(file)
    with open(os.path.join(os.getcwd(), args.cfg_env)) as file:
        settings = yaml.safe_load(file)["env"]
    with open(os.path.join(HERE, "built.json"), "w") as file:
        json.dump({"args": vars(args), "settings": settings, "make": [task_name, algo],
                   "python": list(sys.version_info[:2])}, file)
    if task_name == "ShadowHandPen":
        print("*** Failed to create sim")
        sys.exit()
    assert settings["observationType"] == "full_state", settings
    return Env(args.num_envs, settings["episodeLength"], args.rl_device)
'''

_SETTINGS = "env:\n  observationType: point_cloud\n  episodeLength: 6\n  numEnvs: 2048\n"


def install(folder: Path, python: str, *, tensors: bool = False) -> Path:
    """Put both packages below `folder`; the path of an interpreter (`python`, wrapped) that finds them.

    With `tensors` they speak in torch tensors, as the originals; else in arrays, which saves importing torch.
    """
    packages = folder / "packages"
    for name, source in (("isaacgym", _ISAACGYM), ("bidexhands", f"TENSORS = {tensors}\n{_BIDEXHANDS}")):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(source)
    (packages / "bidexhands" / "cfg" / "mappo").mkdir(parents=True)
    (packages / "bidexhands" / "cfg" / "mappo" / "config.yaml").write_text("algorithm_name: mappo\n")
    for task in ("ShadowHandBottleCap", "ShadowHandPen"):
        (packages / "bidexhands" / "cfg" / f"{task}.yaml").write_text(_SETTINGS)
    wrapper = folder / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{python}" "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def built(folder: Path) -> Path:
    """Where the stand-in notes how it was made."""
    return folder / "packages" / "bidexhands" / "built.json"
