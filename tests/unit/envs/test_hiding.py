"""Which entries of an observation are hidden, by their names."""

from __future__ import annotations

import pytest

from envs.hiding import SUFFIX, Hide, hidden

NAMES = {
    "move_action_north": "",
    "enemy_shootable_0": "",
    "enemy_distance_0": "",
    "enemy_relative_x_0": "",
    "enemy_health_0": "enemy",
    "enemy_shield_10": "enemy",
    "enemy_unit_type_0_bit_2": "enemy",
    "enemy_weapon_cooldown_0": "",
    "ally_visible_1": "",
    "ally_health_1": "ally",
    "ally_shield_1": "ally",
    "ally_unit_type_1_bit_0": "ally",
    "ally_last_action_1_action_3": "",
    "own_health": "",
    "own_shield": "",
    "own_unit_type_bit_0": "",
    "own_pos_x": "",
}
"""Whose type, hit points or shields an entry tells."""


@pytest.mark.parametrize(
    ("hide", "whose"),
    [("none", ()), ("types_and_health", ("ally", "enemy")), ("enemy_types_and_health", ("enemy",))],
)
def test_types_hit_points_and_shields_of_others_are_hidden(hide: Hide, whose: tuple[str, ...]) -> None:
    assert hidden(list(NAMES), hide).tolist() == [about in whose for about in NAMES.values()]


def test_names_of_tasks_tell_what_is_hidden() -> None:
    assert len(set(SUFFIX.values())) == len(SUFFIX)
