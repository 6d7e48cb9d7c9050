"""How SMACv2 lays out an observation, in its own words; from its source, checked against it when a game is built.

After `StarCraft2Env.get_obs_agent` of oxwhirl/smacv2 (commit 9dabb98): where an agent can move, the enemies, the other
allies, itself. Knows no game.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class ObsLayout:
    """What decides the entries of an observation in the setting of this adapter.

    That is SMACv2's own: health of all, no last actions, no grids, no field of view, no probabilities.
    """

    num_agents: int
    num_enemies: int
    has_ally_shields: bool
    has_enemy_shields: bool
    num_types: int
    """Bits that tell a unit's type; 0 on maps with one type a side."""
    has_own_position: bool

    def names(self) -> list[str]:
        """Of the entries, as agent 0 numbers the other allies; the others' observations are laid out alike."""
        names = [f"move_action_{direction}" for direction in ("north", "south", "east", "west")]
        for enemy in range(self.num_enemies):
            places = ("shootable", "distance", "relative_x", "relative_y")
            names += self._unit("enemy", f"_{enemy}", places, self.has_enemy_shields)
        for ally in range(1, self.num_agents):
            places = ("visible", "distance", "relative_x", "relative_y")
            names += self._unit("ally", f"_{ally}", places, self.has_ally_shields)
        own = ["own_health"] + ["own_shield"] * self.has_ally_shields
        own += ["own_pos_x", "own_pos_y"] * self.has_own_position
        return names + own + [f"own_unit_type_bit_{bit}" for bit in range(self.num_types)]

    def _unit(self, whose: str, number: str, places: Sequence[str], has_shields: bool) -> list[str]:
        told = [*places, "health"] + ["shield"] * has_shields
        types = [f"{whose}_unit_type{number}_bit_{bit}" for bit in range(self.num_types)]
        return [f"{whose}_{what}{number}" for what in told] + types
