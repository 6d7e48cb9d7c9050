"""A small battle behind the interface of `envs/smax_worker.py`: what SMAX's adapter is tested on without JAX.

Two sides on a square field, two kinds of units, discrete actions of which not all are available, units that die. Knows
NumPy and the worker's layout, and nothing of the adapter.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata

import numpy as np

from envs.smax_worker import Sizes

FIELD, SIGHT, REACH = 8.0, 5.0, 2.5
HEALTH = np.array([4.0, 6.0])
"""Of each kind of unit; a hit takes 1 from it, or 2 where the attacker is of the second kind."""
MOVES = np.array([[0, 1], [0, -1], [1, 0], [-1, 0], [0, 0]], np.float64)
"""North, south, east, west and stop, which is all that the dead can do; attacks on enemy 0, 1, ... follow."""
STOP = 4
FEATURES = ("position_x{}", "position_y{}", "health{}", "unit_type{}_bit_0", "unit_type{}_bit_1")


@dataclasses.dataclass
class Battle:
    """One world: U units, the allies first."""

    place: np.ndarray
    """[U,2]"""
    kind: np.ndarray
    """[U] int."""
    health: np.ndarray
    """[U], 0 and less for the dead."""
    reward: float = 0.0


class Skirmish:
    """`num_worlds` battles against enemies that attack the nearest ally, or walk towards it."""

    def __init__(self, num_worlds: int, num_allies: int = 3, num_enemies: int = 2) -> None:
        self._allies, self._units = num_allies, num_allies + num_enemies
        others = [("ally", f"_{i}") for i in range(1, num_allies)] + [("enemy", f"_{i}") for i in range(num_enemies)]
        self.obs_names = [
            f"{whom}_{feature.format(number)}" for whom, number in [*others, ("own", "")] for feature in FEATURES
        ]
        sizes = (len(FEATURES) * self._units, len(FEATURES) * self._units, len(MOVES) + num_enemies)
        self.sizes = Sizes(num_worlds, num_allies, *sizes)
        self.versions = {"numpy": importlib.metadata.version("numpy")}
        self._battles = [self._begin(0) for _ in range(num_worlds)]

    def reset(self, rows: np.ndarray, seed: np.ndarray) -> dict[str, np.ndarray]:
        """Begin anew in the worlds marked in `rows` [W]."""
        for world in np.flatnonzero(rows):
            self._battles[world] = self._begin(int(seed[world]))
        return self._shown()

    def step(self, rows: np.ndarray, action: np.ndarray) -> dict[str, np.ndarray]:
        """One step of the worlds marked in `rows` [W] with the allies' `action` [W,N]."""
        for world in np.flatnonzero(rows):
            self._go_on(self._battles[world], action[world])
        return self._shown()

    def _begin(self, seed: int) -> Battle:
        rng = np.random.default_rng(seed % 2**63)
        place = rng.uniform(0.0, FIELD / 2, (self._units, 2))
        place[self._allies :, 0] += FIELD / 2
        kind = rng.integers(2, size=self._units)
        return Battle(place, kind, HEALTH[kind].copy())

    def _go_on(self, battle: Battle, action: np.ndarray) -> None:
        before = battle.health[self._allies :].clip(0).sum()
        available = self._available(battle)
        hits = np.zeros(self._units)
        for unit, chosen in [*enumerate(action), *self._enemies_choices(battle)]:
            if unit < self._allies and not available[unit, chosen]:
                raise ValueError(f"unit {unit} cannot take action {chosen} now")
            if chosen < len(MOVES):
                battle.place[unit] = np.clip(battle.place[unit] + 0.5 * MOVES[chosen], 0.0, FIELD)
            else:
                target = chosen - len(MOVES)
                hits[target + self._allies * (unit < self._allies)] += 1 + battle.kind[unit]
        battle.health -= hits
        battle.reward = float(before - battle.health[self._allies :].clip(0).sum())

    def _enemies_choices(self, battle: Battle) -> list[tuple[int, int]]:
        choices, living = [], np.flatnonzero(battle.health[: self._allies] > 0)
        for enemy in range(self._allies, self._units):
            if battle.health[enemy] <= 0 or not living.size:
                continue
            apart = battle.place[living] - battle.place[enemy]
            nearest = int(np.linalg.norm(apart, axis=1).argmin())
            in_reach = np.linalg.norm(apart[nearest]) < REACH
            walk = int((MOVES[:STOP] @ apart[nearest]).argmax())
            choices.append((enemy, len(MOVES) + int(living[nearest]) if in_reach else walk))
        return choices

    def _available(self, battle: Battle) -> np.ndarray:
        """bool [N,A]."""
        available = np.zeros((self._allies, self.sizes.actions), bool)
        available[:, STOP] = True
        for ally in np.flatnonzero(battle.health[: self._allies] > 0):
            distance = np.linalg.norm(battle.place[self._allies :] - battle.place[ally], axis=1)
            available[ally, :STOP] = True
            available[ally, len(MOVES) :] = (distance < REACH) & (battle.health[self._allies :] > 0)
        return available

    def _shown(self) -> dict[str, np.ndarray]:
        alive = np.stack([battle.health > 0 for battle in self._battles])
        allies, enemies = (np.any(side, axis=1) for side in np.split(alive, [self._allies], axis=1))
        return {
            "obs": np.stack([self._obs(battle) for battle in self._battles]),
            "state": np.stack([self._features(battle, np.zeros(2)).reshape(-1) for battle in self._battles]),
            "available": np.stack([self._available(battle) for battle in self._battles]),
            "reward": np.array([battle.reward for battle in self._battles]),
            "over": ~(allies & enemies),
            "won": allies & ~enemies,
        }

    def _features(self, battle: Battle, origin: np.ndarray) -> np.ndarray:
        """[U,5]: place as seen from `origin`, health and kind of every unit; of the dead, zeros."""
        health = battle.health / HEALTH[battle.kind]
        kind = np.eye(len(HEALTH))[battle.kind]
        return (
            np.concatenate([(battle.place - origin) / FIELD, health[:, None], kind], 1) * (battle.health > 0)[:, None]
        )

    def _obs(self, battle: Battle) -> np.ndarray:
        """[N,O]: of each ally, what it sees of the others, then itself; of the dead, zeros."""
        rows = []
        for ally in range(self._allies):
            place = battle.place[ally]
            is_seen = np.linalg.norm(battle.place - place, axis=1) < SIGHT
            others = np.delete(self._features(battle, place) * is_seen[:, None], ally, axis=0)
            own = self._features(battle, np.zeros(2))[ally]
            rows.append(np.append(others, own) * (battle.health[ally] > 0))
        return np.stack(rows)
