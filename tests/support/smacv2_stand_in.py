"""A battle with the interface of SMACv2's wrapper, without StarCraft: what the adapter's own logic is tested on.

Written from what the original's `get_obs_agent`, `get_avail_agent_actions` and `step` do, entry by entry and with their
running index, so that the adapter's layout is compared with another derivation of it. Nothing of the original's code is
here, and its physics least of all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIGHT, REACH, LIMIT = 9.0, 6.0, 30
NO_ATTACK = 6
"""Actions before the attacks: no-op, stop, north, south, east, west."""
STEPS = {2: (0, 2), 3: (0, -2), 4: (2, 0), 5: (-2, 0)}


class Teams:
    """Draws teams, as the original's distributions do: with a generator of its own that nobody seeds."""

    def __init__(self, num_units: int) -> None:
        self.rng = np.random.default_rng()
        self._num_units = num_units

    def generate(self) -> dict[str, np.ndarray]:
        return {"types": self.rng.integers(3, size=self._num_units)}


class Places:
    """Draws places, with two distributions inside, as `surrounded_and_reflect`."""

    def __init__(self, num_units: int) -> None:
        self.rng = np.random.default_rng()
        self.near, self.far = Uniform(num_units, 12.0, 20.0), Uniform(num_units, 4.0, 28.0)

    def generate(self) -> dict[str, np.ndarray]:
        return (self.near if self.rng.random() > 0.5 else self.far).generate()


class Uniform:
    def __init__(self, num_units: int, low: float, high: float) -> None:
        self.rng = np.random.default_rng()
        self._arguments = (low, high, (num_units, 2))

    def generate(self) -> dict[str, np.ndarray]:
        return {"places": self.rng.uniform(*self._arguments)}


class StandIn:
    """`shields`: whether units have them, as the Protoss; `broken_at`: the step at which the game is lost, if any."""

    def __init__(self, n_agents: int = 3, n_enemies: int = 4, shields: bool = True, broken_at: int = 0) -> None:
        self.n_agents, self.n_enemies, self._broken_at = n_agents, n_enemies, broken_at
        self.shield_bits_ally = self.shield_bits_enemy = int(shields)
        self.unit_type_bits, self.obs_own_pos, self.episode_limit = 3, True, LIMIT
        self.n_actions = NO_ATTACK + n_enemies
        num_units = n_agents + n_enemies
        self.env_key_to_distribution_map: dict[str, Any] = {"team_gen": Teams(num_units), "start": Places(num_units)}
        self.renamed: dict[str, str] = {}

    def reset(self) -> None:
        """Gives nothing, as the original does where it has to try again."""
        drawn = {k: v for each in self.env_key_to_distribution_map.values() for k, v in each.generate().items()}
        self.types, self.places = drawn["types"], drawn["places"].copy()
        self.health = np.ones(len(self.types))
        self.shield = np.ones(len(self.types)) * self.shield_bits_ally
        self.steps, self.last_action = 0, np.zeros((self.n_agents, self.n_actions))

    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == self._broken_at:
            return 0, True, {}
        before = self.health[self.n_agents :].sum()
        available = self.get_avail_actions()
        for agent, action in enumerate(actions):
            assert available[agent][action] == 1, f"Agent {agent} cannot perform action {action}"
            self.places[agent] += STEPS.get(action, (0, 0))
            if action >= NO_ATTACK:
                self._hit(self.n_agents + action - NO_ATTACK)
        for enemy in np.flatnonzero(self.health[self.n_agents :] > 0):
            distance = np.linalg.norm(self.places[: self.n_agents] - self.places[self.n_agents + enemy], axis=1)
            distance[self.health[: self.n_agents] <= 0] = np.inf
            if distance.min() < REACH:
                self._hit(int(distance.argmin()))
        self.last_action = np.eye(self.n_actions)[actions]
        allies, enemies = (self.health[: self.n_agents] > 0).any(), (self.health[self.n_agents :] > 0).any()
        info = {"battle_won": bool(allies and not enemies)}
        is_over = not (allies and enemies)
        if not is_over and self.steps >= LIMIT:
            is_over, info["episode_limit"] = True, True
        return float(before - self.health[self.n_agents :].sum()), is_over, info

    def _hit(self, unit: int) -> None:
        if self.shield[unit] > 0:
            self.shield[unit] -= 0.25
        else:
            self.health[unit] = max(self.health[unit] - 0.25, 0.0)

    def get_avail_actions(self) -> list[list[int]]:
        available = []
        for agent in range(self.n_agents):
            if self.health[agent] <= 0:
                available.append([1] + [0] * (self.n_actions - 1))
                continue
            distance = np.linalg.norm(self.places[self.n_agents :] - self.places[agent], axis=1)
            shots = (distance <= REACH) & (self.health[self.n_agents :] > 0)
            moves = [
                int(((self.places[agent] + STEPS[move]) % 32 == self.places[agent] + STEPS[move]).all())
                for move in STEPS
            ]
            available.append([0, 1, *moves, *shots.astype(int).tolist()])
        return available

    def get_obs(self) -> list[np.ndarray]:
        return [self.obs_of(agent)[0] for agent in range(self.n_agents)]

    def obs_of(self, agent: int) -> tuple[np.ndarray, np.ndarray]:
        """An observation, and which of its entries tell a type, hit points or shields of another unit."""
        shield, bits = self.shield_bits_enemy, self.unit_type_bits
        enemies = np.zeros((self.n_enemies, 4 + 1 + shield + bits), np.float32)
        allies = np.zeros((self.n_agents - 1, 4 + 1 + shield + bits), np.float32)
        told = [np.zeros(4, bool), np.zeros(enemies.shape, bool), np.zeros(allies.shape, bool)]
        moves, own = np.zeros(4, np.float32), np.zeros(1 + shield + 2 + bits, np.float32)
        told.append(np.zeros(own.shape, bool))
        others = [other for other in range(self.n_agents) if other != agent]
        for rows, units, marks in (
            (enemies, list(range(self.n_agents, len(self.types))), told[1]),
            (allies, others, told[2]),
        ):
            for row, unit in enumerate(units):
                ind = 4
                marks[row, ind] = True
                ind += 1
                if shield:
                    marks[row, ind] = True
                    ind += 1
                marks[row, ind:] = True
                apart = (self.places[unit] - self.places[agent]) / SIGHT
                if min(self.health[agent], self.health[unit]) > 0 and np.linalg.norm(apart) < 1:
                    rows[row, :4] = [1, np.linalg.norm(apart), *apart]
                    rows[row, 4] = self.health[unit]
                    rows[row, 5 : 5 + shield] = self.shield[unit]
                    rows[row, ind + self.types[unit]] = 1
        if self.health[agent] > 0:
            moves[:] = self.get_avail_actions()[agent][2:6]
            own[0] = self.health[agent]
            own[1 : 1 + shield] = self.shield[agent]
            own[1 + shield : 3 + shield] = self.places[agent] / 32
            own[3 + shield + self.types[agent]] = 1
        flat = np.concatenate([moves, enemies.flatten(), allies.flatten(), own])
        return flat, np.concatenate([mark.flatten() for mark in told])

    def get_state(self) -> np.ndarray:
        units = np.stack([self.health, self.shield, *self.places.T, self.types], axis=1)
        return np.append(units, self.last_action).astype(np.float32)

    def get_obs_feature_names(self) -> list[str]:
        """As the original's `build_obs_feature_names`, section by section."""
        names = ["move_action_north", "move_action_south", "move_action_east", "move_action_west"]
        for side, units in (("enemy", range(self.n_enemies)), ("ally", range(1, self.n_agents))):
            for unit in units:
                names.append(f"enemy_shootable_{unit}" if side == "enemy" else f"ally_visible_{unit}")
                names += [f"{side}_{what}_{unit}" for what in ("distance", "relative_x", "relative_y", "health")]
                if self.shield_bits_enemy:
                    names.append(f"{side}_shield_{unit}")
                names += [f"{side}_unit_type_{unit}_bit_{bit}" for bit in range(3)]
        names += ["own_health"] + (["own_shield"] if self.shield_bits_ally else [])
        names += ["own_pos_x", "own_pos_y", "own_unit_type_bit_0", "own_unit_type_bit_1", "own_unit_type_bit_2"]
        return [self.renamed.get(name, name) for name in names]

    def get_env_info(self) -> dict[str, int]:
        state = 5 * (self.n_agents + self.n_enemies) + self.n_agents * self.n_actions
        sizes = {"state_shape": state, "obs_shape": len(self.get_obs_feature_names()), "n_actions": self.n_actions}
        return dict(sizes, n_agents=self.n_agents, episode_limit=self.episode_limit)

    def close(self) -> None: ...
