"""SMACv2, the battles of StarCraft II: `env=smacv2/zerg-5v5`. How to set it up: docs/smac.md.

Needs the package `smacv2` and the game itself, both imported only when an environment is built. Not tested on either:
docs/smac.md says what is. `env=smax/...` needs neither.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

from envs.hiding import SUFFIX, Hide
from envs.smacv2_env import Smacv2Env
from worldmodel.config import Config, ConfigError

INSTEAD = "env=smax/smacv2-5-units is a stand-in that needs no StarCraft (docs/smac.md)"


@dataclasses.dataclass(frozen=True)
class Smacv2Config(Config):
    """Teams of one race, drawn anew in every episode, against the game's own opponent."""

    race: str
    """zerg, protoss or terran: the map 10gen_RACE."""
    num_allies: int
    num_enemies: int
    unit_types: tuple[str, ...]
    """That teams are drawn from."""
    type_weights: tuple[float, ...]
    """How likely each type is."""
    never_alone: tuple[str, ...]
    """Types that must not make up a whole team."""
    hide: Hide
    """`types_and_health`: of all other units; `enemy_types_and_health`: of the enemies alone; `none`: as SMACv2 is."""
    episode_steps: int | None
    """After which an episode is truncated; null: the map's own limit."""
    difficulty: str
    """Of the opponent: 1 to 9 or A."""
    prob_obs_enemy: float
    """How likely an enemy that one ally sees is shown to each other ally in whose sight it is."""

    def validate(self) -> None:
        """Refuse teams that cannot be drawn."""
        self.require(self.race in ("zerg", "protoss", "terran"), "race", "zerg, protoss or terran")
        self.require(self.num_allies >= 1, "num_allies", "at least 1")
        self.require(self.num_enemies >= 1, "num_enemies", "at least 1")
        self.require(
            len(self.type_weights) == len(self.unit_types) and abs(sum(self.type_weights) - 1.0) < 1e-6,
            "type_weights",
            f"a share of each of {', '.join(self.unit_types)}, together 1",
        )
        self.require(set(self.never_alone) < set(self.unit_types), "never_alone", "some of unit_types, but not all")
        self.require(self.episode_steps is None or self.episode_steps >= 1, "episode_steps", "at least 1, or null")
        self.require(self.difficulty in tuple("123456789A"), "difficulty", "1 to 9 or A")
        self.require(0.0 <= self.prob_obs_enemy <= 1.0, "prob_obs_enemy", "0 to 1")

    @property
    def env_id(self) -> str:
        """The name in results."""
        return f"smacv2/{self.race}-{self.num_allies}v{self.num_enemies}{SUFFIX[self.hide]}"

    def build(self) -> Smacv2Env:
        """One environment with a game of its own, which starts at the first reset."""
        wrapper = self._wrapper()
        check_game(self.env_id, game_folder())
        return Smacv2Env(
            wrapper(**self.arguments()),
            env_id=self.env_id,
            hide=self.hide,
            episode_steps=self.episode_steps,
            versions=tuple((name, importlib.metadata.version(name)) for name in ("pysc2", "smacv2")),
        )

    def arguments(self) -> dict[str, Any]:
        """What SMACv2's wrapper is built with: its authors' settings, as far as they are not this config's fields."""
        return {
            "map_name": f"10gen_{self.race}",
            "difficulty": self.difficulty,
            "prob_obs_enemy": self.prob_obs_enemy,
            "obs_own_pos": True,
            "use_unit_ranges": True,
            "min_attack_range": 2,
            "continuing_episode": True,  # so that `info` tells an end in time
            "capability_config": {
                "n_units": self.num_allies,
                "n_enemies": self.num_enemies,
                "team_gen": {
                    "dist_type": "weighted_teams",
                    "unit_types": list(self.unit_types),
                    "weights": list(self.type_weights),
                    "exception_unit_types": list(self.never_alone),
                    "observe": True,
                },
                "start_positions": {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32},
            },
        }

    def _wrapper(self) -> Any:
        try:
            return importlib.import_module("smacv2.env.starcraft2.wrapper").StarCraftCapabilityEnvWrapper
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{self.env_id}: the package {error.name!r} is missing: "
                f"pip install git+https://github.com/oxwhirl/smacv2.git, and StarCraft II itself; {INSTEAD}"
            ) from error


def game_folder() -> Path:
    """Where pysc2 looks for StarCraft II on Linux: the variable SC2PATH, or ~/StarCraftII."""
    return Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser()


def check_game(env_id: str, folder: Path) -> None:
    """Refuse to go on without StarCraft II in `folder` and SMACv2's map in that; raises `ConfigError`."""
    if not (folder / "Versions").is_dir():
        raise ConfigError(
            f"{env_id}: there is no StarCraft II in {folder}: unpack Blizzard's Linux package there "
            f"(https://github.com/Blizzard/s2client-proto#downloads), or say where it is with SC2PATH; {INSTEAD}"
        )
    if not list(folder.glob("Maps/**/32x32_flat.SC2Map")):
        raise ConfigError(
            f"{env_id}: SMACv2's map 32x32_flat.SC2Map is not below {folder / 'Maps'}: copy the folder SMAC_Maps from "
            f"https://github.com/oxwhirl/smacv2 (smacv2/env/starcraft2/maps) there; {INSTEAD}"
        )
