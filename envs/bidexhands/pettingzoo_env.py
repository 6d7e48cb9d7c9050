"""The tasks as PettingZoo parallel environments: two agents, one a hand.

from envs.bidexhands import parallel_env
env = parallel_env("door-open-outward")
observations, infos = env.reset(seed=0)
actions = {agent: env.action_space(agent).sample() for agent in env.agents}
observations, rewards, terminations, truncations, infos = env.step(actions)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from envs.bidexhands.batch import BiDexHandsBatch, PhysicsName
from envs.bidexhands.observation import CLIP
from envs.bidexhands.rendering import SceneRenderer
from envs.bidexhands.scene import CONTROL_HZ, Physics
from envs.bidexhands.task import Task
from envs.errors import EnvError

AGENTS = ("right_hand", "left_hand")


class BiDexHandsParallelEnv(ParallelEnv[str, np.ndarray, np.ndarray]):
    """One episode at a time; arguments as `BiDexHandsBatch`, and the size of pictures in pixels.

    Observations (float32, clipped to [-5, 5]) are an agent's own hand and the object, `state()` is everything, both in
    the layout of Bi-DexHands. Both agents get the same reward and end together: terminated when the task failed,
    truncated when the time ran out. `infos[agent]` holds `success` (reached so far in this episode) and the terms of
    the reward.
    """

    def __init__(
        self,
        task: str | Task,
        *,
        physics: PhysicsName | Physics = "fine",
        contact_channels: bool = True,
        episode_steps: int | None = None,
        width: int = 640,
        height: int = 480,
    ) -> None:
        self.batch = BiDexHandsBatch(
            task, physics=physics, contact_channels=contact_channels, episode_steps=episode_steps
        )
        self.render_mode = "rgb_array"
        self.metadata = {
            "name": f"bidexhands-mujoco/{self.batch.task.name}",
            "render_modes": ["rgb_array"],
            "render_fps": CONTROL_HZ,
            "is_parallelizable": True,
        }
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        observer = self.batch.observer
        self.state_space = Box(-CLIP, CLIP, (observer.state_size,), np.float32)
        self._observation_space = {a: Box(-CLIP, CLIP, (observer.obs_size,), np.float32) for a in AGENTS}
        self._action_space = {a: Box(-1.0, 1.0, (observer.action_size,), np.float32) for a in AGENTS}
        self._renderer = SceneRenderer(width, height)
        self._state = np.zeros(observer.state_size, np.float32)
        self._seeds = np.random.default_rng()
        self._was_reset = False

    def observation_space(self, agent: str) -> Box:
        """Of one agent."""
        return self._observation_space[agent]

    def action_space(self, agent: str) -> Box:
        """Of one agent: base force (3) and torque (3) where the hands float, then 20 motors, all in [-1, 1]."""
        return self._action_space[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Begin an episode; without a `seed` it gets one drawn from the last seed. `options` are ignored.

        Raises:
            EnvError: for a negative seed.
        """
        if seed is not None and seed < 0:
            raise self._error(f"reset(seed={seed}); expected a seed of at least 0")
        if seed is not None:
            self._seeds = np.random.default_rng(seed)
        episode = int(self._seeds.integers(2**31)) if seed is None else seed
        observed = self.batch.reset([0], [episode])
        self.agents = list(AGENTS)
        self._was_reset = True
        self._state = observed.state[0]
        return dict(zip(AGENTS, observed.obs[0], strict=True)), {agent: {"success": False} for agent in AGENTS}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One control step of 1/60 s; actions are clipped to [-1, 1].

        Raises:
            EnvError: before `reset` and after an episode's end, without an action for each agent, or as
                `BiDexHandsBatch.step`.
        """
        if not self.agents:
            raise self._error("step() before reset(), or after the episode's end")
        result = self.batch.step([0], self._joint_action(actions)[None])
        self._state = result.state[0]
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        if terminated or truncated:
            self.agents = []
        info = {"success": bool(result.success[0])} | {name: float(term[0]) for name, term in result.terms.items()}
        return (
            dict(zip(AGENTS, result.obs[0], strict=True)),
            dict.fromkeys(AGENTS, float(result.reward[0])),
            dict.fromkeys(AGENTS, terminated),
            dict.fromkeys(AGENTS, truncated),
            {agent: dict(info) for agent in AGENTS},
        )

    def state(self) -> np.ndarray:
        """The global state float32 [S]: right hand, left hand, object. Raises `EnvError` before the first `reset`."""
        if not self._was_reset:
            raise self._error("state() before reset()")
        return self._state.copy()

    def resume(self, agents: list[str], state: np.ndarray) -> None:
        """Stand where `agents` are alive and `state()` is `state`, after the batch was restored."""
        self.agents, self._state = agents, state

    def render(self) -> np.ndarray:
        """The view of the task's camera, uint8 [height, width, 3]; needs no screen.

        Raises:
            EnvError: before the first `reset`, or where this machine cannot draw.
        """
        if not self._was_reset:
            raise self._error("render() before reset()")
        return self._renderer.draw(self.batch.simulation.model, self.batch.simulation.world(0))

    def close(self) -> None:
        """Free the picture's buffers."""
        self._renderer.close()
        self.batch.close()

    def _joint_action(self, actions: Mapping[str, Any]) -> np.ndarray:
        """`actions` of the agents as one array [2,A]; raises `EnvError` naming the agent whose action is no such."""
        if not isinstance(actions, Mapping):
            raise self._error(f"actions are a {type(actions).__name__}; expected a dict with one for each agent")
        if set(actions) != set(AGENTS):
            given = ", ".join(map(str, actions)) or "nobody"
            raise self._error(f"actions for {given}; expected one for each of {', '.join(AGENTS)}")
        return np.stack([self._own_action(agent, actions[agent]) for agent in AGENTS])

    def _own_action(self, agent: str, action: Any) -> np.ndarray:
        own, expected = np.asarray(action), self._action_space[agent].shape
        if own.shape != expected:
            raise self._error(f"the action of {agent} has shape {list(own.shape)}; expected {list(expected)}")
        if own.dtype.kind not in "fiub":
            raise self._error(f"the action of {agent} has dtype {own.dtype}; expected real numbers")
        if not np.isfinite(own).all():
            entry = int(np.flatnonzero(~np.isfinite(own))[0])
            raise self._error(f"entry {entry} of the action of {agent} is {own[entry]}; expected numbers in [-1, 1]")
        return own

    def _error(self, text: str) -> EnvError:
        return EnvError(f"{self.metadata['name']}: {text}")
