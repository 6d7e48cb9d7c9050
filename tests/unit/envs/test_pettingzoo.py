"""The adapter for PettingZoo parallel environments, on a small one with unequal agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space
from pettingzoo import ParallelEnv

from envs.base import EnvError
from envs.pettingzoo import ObsMode, PettingZooConfig, PettingZooEnv
from worldmodel.config import ConfigError


class Team(ParallelEnv[str, np.ndarray, np.ndarray]):
    """`a` sees one number and acts in [0, 4] x [-3, 1]; `b` sees [1, 2] numbers and acts in [-2, 2]."""

    metadata: dict[str, Any] = {"name": "team"}  # noqa: RUF012 (PettingZoo's own way)

    def __init__(self) -> None:
        self.possible_agents = ["a", "b"]
        self.agents: list[str] = []
        self.received: dict[str, np.ndarray] = {}
        self.terminate_at: dict[str, int] = {}
        self.truncate_at: dict[str, int] = {}
        self.steps = 0

    def observation_space(self, agent: str) -> Space[Any]:
        return Box(-np.inf, np.inf, (1,) if agent == "a" else (1, 2))

    def action_space(self, agent: str) -> Space[Any]:
        if agent == "a":
            return Box(np.array([0.0, -3.0], np.float32), np.array([4.0, 1.0], np.float32))
        return Box(-2.0, 2.0, (1,), np.float64)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self.agents, self.steps, self.seed = list(self.possible_agents), 0, seed
        return self._obs(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[Any, ...]:
        self.received = actions
        self.steps += 1
        terminated = {agent: self.steps >= self.terminate_at.get(agent, 99) for agent in self.possible_agents}
        truncated = {agent: self.steps >= self.truncate_at.get(agent, 99) for agent in self.possible_agents}
        info = {"a": {"speed": 1.0, "name": "x"}, "b": {"speed": 2.0}}
        return self._obs(), {"a": 1.0, "b": 4.0}, terminated, truncated, info

    def state(self) -> np.ndarray:
        return np.array([[self.steps, self.seed or 0]], np.int64)

    def render(self) -> None:
        """No picture."""

    def _obs(self) -> dict[str, np.ndarray]:
        return {"a": np.array([10.0 + self.steps]), "b": np.array([[20.0, 30.0]]) + self.steps}


def adapt(team: Team, episode_steps: int = 10, obs_mode: ObsMode = "local") -> PettingZooEnv:
    return PettingZooEnv(team, env_id="test/team", episode_steps=episode_steps, obs_mode=obs_mode)


ZERO = np.zeros((2, 2), np.float32)


def test_the_spec_pads_and_masks_unequal_agents() -> None:
    spec = adapt(Team()).spec
    assert (spec.obs_sizes, spec.action_sizes, spec.state_dim) == ((1, 2), (2, 1), 2)
    assert spec.obs_mask().tolist() == [[True, False, True, True], [True, True, True, True]]
    assert spec.action_mask().tolist() == [[True, True], [True, False]]


def test_observations_are_padded_and_the_state_is_one_float32_vector() -> None:
    env = adapt(Team())
    observed = env.reset(seed=7)
    np.testing.assert_array_equal(observed.obs, [[10, 0, 1, 0], [20, 30, 0, 1]])
    np.testing.assert_array_equal(observed.state, [0, 7])
    assert observed.state.dtype == np.float32
    np.testing.assert_array_equal(env.step(ZERO).obs, [[11, 0, 1, 0], [21, 31, 0, 1]])


def test_full_mode_shows_every_agent_the_state_and_nothing_else() -> None:
    env = adapt(Team(), obs_mode="full")
    np.testing.assert_array_equal(env.reset(seed=7).obs, [[0, 7, 1, 0], [0, 7, 0, 1]])


@pytest.mark.parametrize(
    ("action", "a", "b"),
    [
        ([[-1, -1], [-1, 0]], [0, -3], [-2]),
        ([[1, 1], [1, 0]], [4, 1], [2]),
        ([[0, 0.5], [0.25, 0]], [2, 0], [0.5]),
        ([[9, -9], [-9, 9]], [4, -3], [-2]),  # clipped; the padded entry goes nowhere
    ],
)
def test_actions_are_clipped_and_scaled_to_each_box(action: Any, a: list[float], b: list[float]) -> None:
    team = Team()
    env = adapt(team)
    env.reset(seed=0)
    env.step(np.array(action, np.float32))
    np.testing.assert_allclose(team.received["a"], a)
    np.testing.assert_allclose(team.received["b"], b)
    for agent, received in team.received.items():
        assert team.action_space(agent).contains(received)


def test_the_reward_is_the_mean_over_agents_and_info_keeps_numbers() -> None:
    env = adapt(Team())
    env.reset(seed=0)
    result = env.step(ZERO)
    assert result.reward == 2.5
    assert result.info == {"speed": 1.5}


@pytest.mark.parametrize(
    ("terminate_at", "truncate_at", "expected"),
    [
        ({"a": 2, "b": 2}, {}, (True, False)),
        ({}, {"a": 2, "b": 2}, (False, True)),
        ({"a": 2}, {"b": 2}, (False, True)),
        ({"a": 2, "b": 2}, {"a": 2, "b": 2}, (True, True)),
    ],
)
def test_termination_is_kept_apart_from_truncation(
    terminate_at: dict[str, int], truncate_at: dict[str, int], expected: tuple[bool, bool]
) -> None:
    team = Team()
    team.terminate_at, team.truncate_at = terminate_at, truncate_at
    env = adapt(team)
    env.reset(seed=0)
    first, second = env.step(ZERO), env.step(ZERO)
    assert (first.terminated, first.truncated) == (False, False)
    assert (second.terminated, second.truncated) == expected
    with pytest.raises(EnvError, match="after the episode's end"):
        env.step(ZERO)


def test_an_episode_is_truncated_at_episode_steps() -> None:
    env = adapt(Team(), episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(ZERO)[3:5] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


class Stateless(Team):
    state = ParallelEnv.state


class DiscreteActions(Team):
    def action_space(self, agent: str) -> Space[Any]:
        return Discrete(3)


class Unbounded(Team):
    def action_space(self, agent: str) -> Space[Any]:
        return Box(-np.inf, np.inf, (2,))


class DictObservations(Team):
    def observation_space(self, agent: str) -> Space[Any]:
        return Dict({"x": Box(0, 1, (1,))})


@pytest.mark.parametrize(
    ("team", "message"),
    [
        (Stateless, r"has no state\(\).*add a method `state\(self\)`"),
        (DiscreteActions, r"action space of agent a is Discrete\(3\).*discrete actions are not supported yet"),
        (Unbounded, "actions of agent a are unbounded"),
        (DictObservations, "observation space of agent a is Dict.*flatten it"),
    ],
)
def test_what_cannot_be_adapted_is_refused_at_once(team: type[Team], message: str) -> None:
    with pytest.raises(EnvError, match=message):
        adapt(team())


def test_agents_that_leave_early_are_refused() -> None:
    team = Team()
    team.terminate_at = {"b": 1}
    env = adapt(team)
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"\['b'\] left at step 1 while others go on"):
        env.step(ZERO)


class ShorterLater(Team):
    def _obs(self) -> dict[str, np.ndarray]:
        return {"a": np.zeros(1), "b": np.zeros(2 if self.steps == 0 else 1)}


class AbsentLater(Team):
    def _obs(self) -> dict[str, np.ndarray]:
        return {"a": np.zeros(1), "b": np.zeros(2)} if self.steps == 0 else {"a": np.zeros(1)}


class TextLater(Team):
    def _obs(self) -> dict[str, Any]:
        return {"a": np.array(["left"]), "b": np.zeros(2)}


@pytest.mark.parametrize(
    ("team", "message"),
    [
        (ShorterLater, r"observation of agent b has shape \[1\]; expected 2 numbers"),
        (AbsentLater, r"no observation for \['b'\]"),
        (TextLater, "observation of agent a has dtype <U4; expected real numbers"),
    ],
)
def test_a_wrong_observation_names_the_agent(team: type[Team], message: str) -> None:
    env = adapt(team())
    with pytest.raises(EnvError, match=message):  # noqa: PT012 (the first of the two shows it for one of them)
        env.reset(seed=0)
        env.step(ZERO)


def test_an_action_of_the_wrong_shape_is_refused() -> None:
    env = adapt(Team())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action has shape \[2, 3\], expected \[N, A\] = \[2, 2\]"):
        env.step(np.zeros((2, 3), np.float32))


def test_a_missing_picture_is_explained() -> None:
    with pytest.raises(EnvError, match="render_mode='rgb_array'"):
        adapt(Team()).render()


def config(make: str, **kwargs: Any) -> PettingZooConfig:
    return PettingZooConfig(
        make=make, kwargs=kwargs, env_id=None, episode_steps=4, obs_mode="local", standardize_obs=False
    )


def test_a_users_own_environment_is_made_from_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_task.py").write_text(
        "import numpy as np\n"
        "from gymnasium.spaces import Box\n"
        "from pettingzoo import ParallelEnv\n"
        "class Pair(ParallelEnv):\n"
        "    def __init__(self, size):\n"
        "        self.possible_agents, self.size = [0, 1], size\n"
        "    def observation_space(self, agent): return Box(-1, 1, (self.size,))\n"
        "    def action_space(self, agent): return Box(-1, 1, (1,))\n"
        "    def state(self): return np.zeros(2)\n"
        "    def reset(self, seed=None, options=None): return {a: np.zeros(self.size) for a in (0, 1)}, {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = config("my_task.Pair", size=3).build().spec
    assert (spec.env_id, spec.obs_sizes) == ("my_task.Pair", (3, 3))
    assert dict(spec.versions).keys() == {"pettingzoo"}
    with pytest.raises(ConfigError, match=r"cannot be called with \{'length': 3\}"):
        config("my_task.Pair", length=3).build()


@pytest.mark.parametrize("path", ["no_such_module.env", "json.no_such_name", "nodots"])
def test_a_wrong_path_is_explained(path: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be imported .*; expected package\.module\.name"):
        config(path).build()


def test_local_observations_cannot_be_standardised() -> None:
    with pytest.raises(ConfigError, match="standardize_obs = True: expected false with obs_mode=local"):
        PettingZooConfig(make="x.y", kwargs={}, env_id=None, episode_steps=4, obs_mode="local", standardize_obs=True)
