"""A game of SMACv2 as a `MultiAgentEnv`: preferences in, the team's reward out, types and hit points taken out.

Knows the interface of SMACv2's wrapper, and nothing of how it is found and built.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.base import EnvError, Observed, StepResult
from envs.hiding import Hide, hidden
from envs.observation import LocalObservation
from envs.preferences import chosen
from envs.smacv2_layout import ObsLayout
from worldmodel.types import EnvSpec


class Smacv2Env:
    """Adapter of `game`, a `StarCraftCapabilityEnvWrapper`.

    A seed decides teams and places. What the game itself draws goes on from episode to episode, so episodes repeat
    themselves in their beginnings only.

    Args:
        game: of SMACv2, with `continuing_episode`.
        env_id: the name in results.
        hide: what agents do not see.
        episode_steps: after which an episode is truncated; None: the map's own limit.
        versions: of what is underneath.

    Raises:
        EnvError: where the game lays out its observations in another way than `ObsLayout` says.
    """

    def __init__(
        self,
        game: Any,
        *,
        env_id: str,
        hide: Hide,
        episode_steps: int | None,
        versions: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._game = game
        info = game.get_env_info()
        names = layout_of(game).names()
        if list(game.get_obs_feature_names()) != names or info["obs_shape"] != len(names):
            raise EnvError(
                f"environment {env_id}: this SMACv2 lays out its {info['obs_shape']} entries of an observation in "
                f"another way than the {len(names)} of docs/smac.md: something else would be hidden"
            )
        self._hidden = hidden(names, hide)
        self._builder = LocalObservation((len(names),) * info["n_agents"])
        self._step_count: int | None = None
        self._spec = EnvSpec(
            env_id=env_id,
            num_agents=info["n_agents"],
            state_dim=info["state_shape"],
            obs_sizes=self._builder.sizes,
            action_sizes=(info["n_actions"],) * info["n_agents"],
            episode_steps=min(episode_steps or info["episode_limit"], info["episode_limit"]),
            appends_agent_id=self._builder.appends_agent_id,
            versions=versions,
        )

    @property
    def spec(self) -> EnvSpec:
        """Sizes, name and versions."""
        return self._spec

    def reset(self, seed: int) -> Observed:
        """Begin an episode with teams and places drawn from `seed`; the first one starts the game."""
        seed_chance(self._game, seed)
        self._game.reset()
        self._step_count = 0
        return self._observed()

    def step(self, action: np.ndarray) -> StepResult:
        """One step with preferences `action` [N,A], see `envs.preferences`."""
        if self._step_count is None:
            raise EnvError(f"environment {self._spec.env_id}: step() before reset(), or after the episode's end")
        try:
            discrete = chosen(action, np.asarray(self._game.get_avail_actions()))
        except ValueError as error:
            raise EnvError(f"environment {self._spec.env_id}: {error}") from error
        reward, is_over, info = self._game.step(discrete.tolist())
        self._step_count += 1
        terminated = bool(is_over) and not ended_otherwise(info)
        truncated = not terminated and (bool(is_over) or self._step_count >= self._spec.episode_steps)
        if terminated or truncated:
            self._step_count = None
        told = {"won": float(info.get("battle_won", False))}
        return StepResult(*self._observed(), float(reward), terminated, truncated, told)

    def render(self) -> np.ndarray:
        """Refused: the game runs without a picture."""
        raise EnvError(f"environment {self._spec.env_id}: the game runs without a picture")

    def close(self) -> None:
        """End the game."""
        self._game.close()

    def _observed(self) -> Observed:
        state = np.asarray(self._game.get_state(), np.float32)
        obs = np.where(self._hidden, np.float32(0.0), np.stack(self._game.get_obs()).astype(np.float32))
        return Observed(self._builder(list(obs), state), state.copy())


def layout_of(game: Any) -> ObsLayout:
    """What decides the entries of `game`'s observations."""
    return ObsLayout(
        num_agents=game.n_agents,
        num_enemies=game.n_enemies,
        has_ally_shields=game.shield_bits_ally > 0,
        has_enemy_shields=game.shield_bits_enemy > 0,
        num_types=game.unit_type_bits,
        has_own_position=game.obs_own_pos,
    )


def ended_otherwise(info: Mapping[str, Any]) -> bool:
    """Whether time ran out, or the game was lost and started anew: SMACv2 then says nothing of the battle."""
    return bool(info.get("episode_limit", False)) or "battle_won" not in info


def seed_chance(game: Any, seed: int) -> None:
    """Let all that SMACv2 draws follow from `seed`: by Python's and NumPy's generators, and its distributions' own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (what SMACv2 draws from)
    chance = np.random.SeedSequence(seed)
    for _, distribution in sorted(game.env_key_to_distribution_map.items()):
        _seed_generators(distribution, chance)


def _seed_generators(distribution: Any, chance: np.random.SeedSequence) -> None:
    """Give every generator in `distribution`, and in the distributions that it is made of, one of its own."""
    for name, value in sorted(vars(distribution).items()):
        if isinstance(value, np.random.Generator):
            setattr(distribution, name, np.random.default_rng(chance.spawn(1)[0]))
        elif hasattr(value, "generate"):
            _seed_generators(value, chance)
