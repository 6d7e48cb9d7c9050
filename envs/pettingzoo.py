"""Any PettingZoo parallel environment with `state()` and Box actions, as a `MultiAgentEnv`.

Unequal observations and actions are padded and masked through `EnvSpec`; actions in [-1, 1] are scaled to each
agent's Box; termination is kept apart from truncation; the team's reward is the mean of the agents' rewards.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs.base import EnvError, Observed, StepResult
from envs.observation import FullObservation, LocalObservation, ObservationBuilder
from envs.spaces import ActionScaling, box_size
from worldmodel.config import Config, ConfigError
from worldmodel.types import EnvSpec

if TYPE_CHECKING:
    from pettingzoo import ParallelEnv

ObsMode = Literal["local", "full"]


@dataclasses.dataclass(frozen=True)
class PettingZooConfig(Config):
    """An environment of the user's own: `env=pettingzoo env.make=package.module.parallel_env`."""

    make: str
    """Dotted path of a function or class that returns a PettingZoo parallel environment."""
    kwargs: dict[str, Any]
    """What `make` is called with."""
    env_id: str | None
    """The name in results; null: the path in `make`."""
    episode_steps: int
    """Env steps after which an episode is truncated, if the environment has not ended it before."""
    obs_mode: ObsMode
    """`local`: each agent's own observation; `full`: the state for every agent."""
    standardize_obs: bool
    """Standardise each agent's vector by its own mean and deviation; only with `obs_mode=full`."""

    def validate(self) -> None:
        """Refuse an episode without steps and standardised local observations."""
        check_obs_settings(self)

    def build(self) -> PettingZooEnv:
        """Import and call `make`; raises `ConfigError` when that fails."""
        factory = _import_path(self.make)
        try:
            env = factory(**self.kwargs)
        except TypeError as error:
            raise ConfigError(f"env.make={self.make} cannot be called with {self.kwargs}: {error}") from error
        return PettingZooEnv(
            env,
            env_id=self.env_id or self.make,
            episode_steps=self.episode_steps,
            obs_mode=self.obs_mode,
            standardize_obs=self.standardize_obs,
            versions=(("pettingzoo", importlib.metadata.version("pettingzoo")),),
        )


def check_obs_settings(config: Any) -> None:
    """The range checks that every config with `episode_steps`, `obs_mode` and `standardize_obs` shares."""
    config.require(config.episode_steps >= 1, "episode_steps", "at least 1")
    config.require(
        config.obs_mode == "full" or not config.standardize_obs,
        "standardize_obs",
        "false with obs_mode=local: only the full observation was standardised in the published code",
    )


class PettingZooEnv:
    """Adapter of one PettingZoo parallel environment (`env`); agents keep the order of `possible_agents`.

    Reward: the mean of the agents' rewards (where all share one reward, as in MAMuJoCo, that reward itself). The team
    terminates when every agent has terminated, and is truncated when all have ended and at least one by truncation.

    Raises:
        EnvError: when the environment has no `state()`, spaces other than Box, unbounded actions, or agents that leave
            before the others.
    """

    def __init__(
        self,
        env: ParallelEnv[Any, Any, Any],
        *,
        env_id: str,
        episode_steps: int,
        obs_mode: ObsMode,
        standardize_obs: bool = False,
        versions: tuple[tuple[str, str], ...] = (),
        render: Callable[[], Any] | None = None,
        shown: Mapping[Any, np.ndarray] | None = None,
    ) -> None:
        """Adapt `env`; of an agent named in `shown` only those entries of its own observation are shown."""
        self._env = env
        self._shown = shown or {}
        self._render = render or env.render
        self._env_id = env_id
        self._agents: list[Any] = list(env.possible_agents)
        given = [box_size(env_id, "observation", a, env.observation_space(a)) for a in self._agents]
        sizes = tuple(
            len(self._shown[agent]) if agent in self._shown else size
            for agent, size in zip(self._agents, given, strict=True)
        )
        self._actions = ActionScaling(env_id, {agent: env.action_space(agent) for agent in self._agents})
        env.reset(seed=0)  # the state's size is only known once there is a state
        state_dim = self._state().size
        self._local_sizes = given
        self._observe: ObservationBuilder = (
            LocalObservation(sizes)
            if obs_mode == "local"
            else FullObservation(state_dim, len(self._agents), standardize=standardize_obs)
        )
        self._step_count: int | None = None
        self._spec = EnvSpec(
            env_id=env_id,
            num_agents=len(self._agents),
            state_dim=state_dim,
            obs_sizes=self._observe.sizes,
            action_sizes=self._actions.sizes,
            episode_steps=episode_steps,
            appends_agent_id=self._observe.appends_agent_id,
            versions=versions,
        )

    @property
    def spec(self) -> EnvSpec:
        """Sizes, name and versions."""
        return self._spec

    @property
    def parallel_env(self) -> ParallelEnv[Any, Any, Any]:
        """The PettingZoo environment underneath."""
        return self._env

    def reset(self, seed: int) -> Observed:
        """Begin an episode with the environment's own `reset(seed=seed)`."""
        local, _ = self._env.reset(seed=seed)
        self._step_count = 0
        return self._observed(local)

    def step(self, action: np.ndarray) -> StepResult:
        """One env step with `action` [N,A], clipped to [-1, 1] and scaled to each agent's Box."""
        if self._step_count is None:
            raise EnvError(f"environment {self._env_id}: step() before reset(), or after the episode's end")
        local, reward, terminated, truncated, info = self._env.step(self._actions(action))
        self._step_count += 1
        team_terminated, team_truncated = self._team_end(terminated, truncated)
        team_truncated |= self._step_count >= self._spec.episode_steps
        observed = self._observed(local)
        team_reward = _team_reward(self._in_order("reward", reward))
        if team_terminated or team_truncated:
            self._step_count = None
        team_info = _team_info([info.get(agent, {}) for agent in self._agents])
        return StepResult(*observed, team_reward, team_terminated, team_truncated, team_info)

    def render(self) -> np.ndarray:
        """The environment's own picture, uint8 [height, width, 3]."""
        frame = self._render()
        if not isinstance(frame, np.ndarray):
            raise EnvError(
                f"environment {self._env_id}: render() gave {type(frame).__name__}, expected a picture; make the "
                "environment with render_mode='rgb_array'"
            )
        return frame

    def close(self) -> None:
        """Close the environment underneath."""
        self._env.close()

    def _observed(self, local: Mapping[Any, Any]) -> Observed:
        vectors = [
            self._vector(f"the observation of agent {agent}", value, size)
            for agent, value, size in zip(
                self._agents, self._in_order("observation", local), self._local_sizes, strict=True
            )
        ]
        shown = [
            vector[self._shown[agent]] if agent in self._shown else vector
            for agent, vector in zip(self._agents, vectors, strict=True)
        ]
        state = self._state()
        return Observed(self._observe(shown, state), state)

    def _state(self) -> np.ndarray:
        try:
            state = self._env.state()
        except (NotImplementedError, AttributeError) as error:
            raise EnvError(
                f"environment {self._env_id} has no state(): a world model needs the global state; add a method "
                "`state(self)` that returns it as one NumPy vector"
            ) from error
        return self._vector("state()", state, None)

    def _vector(self, name: str, value: Any, size: int | None) -> np.ndarray:
        """The real numbers in `value` as a new float32 vector, which must have `size` entries."""
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise EnvError(f"environment {self._env_id}: {name} has dtype {array.dtype}; expected real numbers")
        if size is not None and array.size != size:
            raise EnvError(
                f"environment {self._env_id}: {name} has shape {list(array.shape)}; expected {size} numbers, as its "
                "observation space says"
            )
        return array.astype(np.float32).reshape(-1)

    def _in_order(self, name: str, values: Mapping[Any, Any]) -> list[Any]:
        missing = [agent for agent in self._agents if agent not in values]
        if missing:
            raise EnvError(
                f"environment {self._env_id}: no {name} for {missing}; expected one for every agent at every step "
                "(agents that leave early are not supported)"
            )
        return [values[agent] for agent in self._agents]

    def _team_end(self, terminated: Mapping[Any, bool], truncated: Mapping[Any, bool]) -> tuple[bool, bool]:
        term = [bool(value) for value in self._in_order("termination", terminated)]
        trunc = [bool(value) for value in self._in_order("truncation", truncated)]
        ended = [a or b for a, b in zip(term, trunc, strict=True)]
        if any(ended) and not all(ended):
            left = [agent for agent, end in zip(self._agents, ended, strict=True) if end]
            raise EnvError(
                f"environment {self._env_id}: {left} left at step {self._step_count} while others go on; agents that "
                "leave early are not supported: let them stay with zero observations and no effect"
            )
        return all(term), all(ended) and any(trunc)


def _team_reward(rewards: list[Any]) -> float:
    """The mean; where all agents have one reward that reward itself, to the last bit."""
    return float(rewards[0] if all(reward == rewards[0] for reward in rewards) else np.mean(rewards))


def _team_info(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The numbers in the agents' infos, averaged over the agents that have them."""
    if all(info is infos[0] for info in infos):
        infos = infos[:1]
    values: dict[str, list[float]] = {}
    for info in infos:
        for name, value in info.items():
            if isinstance(value, (int, float, np.integer, np.floating)):
                values.setdefault(name, []).append(float(value))
    return {name: sum(each) / len(each) for name, each in values.items()}


def _import_path(path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"env.make={path}: cannot be imported ({error}); expected package.module.name of a function that returns a "
            "PettingZoo parallel environment"
        ) from error
