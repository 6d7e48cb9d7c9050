"""SMACv2's adapter without StarCraft: the layout by another derivation, episodes of a stand-in, what is missing."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dima.run.cli import main
from envs.base import EnvError
from envs.check import check_env
from envs.hiding import Hide
from envs.smacv2 import Smacv2Config, check_game, game_folder
from envs.smacv2_env import Smacv2Env
from tests.support.smacv2_stand_in import LIMIT, StandIn
from worldmodel.config import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs" / "env" / "smacv2"


def read(name: str) -> dict[str, Any]:
    base, own = (yaml.safe_load((CONFIGS / f"{file}.yaml").read_text()) for file in ("base", name))
    return {key: value for key, value in {**base, **own}.items() if key not in ("_target_", "defaults")}


def config(**changes: Any) -> Smacv2Config:
    return Smacv2Config(**{**read("zerg-5v5"), **changes})


def adapted(game: StandIn, hide: Hide = "types_and_health", episode_steps: int | None = None) -> Smacv2Env:
    return Smacv2Env(game, env_id="smacv2/stand-in", hide=hide, episode_steps=episode_steps)


def random_preferences(env: Smacv2Env, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, (env.spec.num_agents, env.spec.action_dim)).astype(np.float32)


@pytest.mark.parametrize("shields", [True, False])
@pytest.mark.parametrize(("num_agents", "num_enemies"), [(3, 4), (5, 5), (10, 11)])
def test_exactly_types_health_and_shields_of_others_are_hidden(
    num_agents: int, num_enemies: int, shields: bool
) -> None:
    game = StandIn(num_agents, num_enemies, shields)
    env, rng, told = adapted(game), np.random.default_rng(0), 0
    size = env.spec.obs_sizes[0]
    for seed in range(3):
        obs, state = env.reset(seed)
        for _ in range(LIMIT):
            for agent in range(num_agents):
                full, is_hidden = game.obs_of(agent)
                assert not obs[agent, :size][is_hidden].any()
                np.testing.assert_array_equal(obs[agent, :size][~is_hidden], full[~is_hidden])
                told += int(full[is_hidden].any())
            np.testing.assert_array_equal(state, game.get_state())
            obs, state, _, terminated, truncated, _ = env.step(random_preferences(env, rng))
            if terminated or truncated:
                break
    assert told > 20  # there was something to hide


@pytest.mark.parametrize(("hide", "is_same"), [("none", True), ("enemy_types_and_health", False)])
def test_less_can_be_hidden(hide: Hide, is_same: bool) -> None:
    game = StandIn()
    obs = adapted(game, hide).reset(3).obs[:, : len(game.get_obs_feature_names())]
    full = np.stack(game.get_obs())
    after_enemies = 4 + 4 * 9
    assert np.array_equal(obs, full) == is_same
    np.testing.assert_array_equal(obs[:, after_enemies:], full[:, after_enemies:])


def test_another_layout_is_refused() -> None:
    game = StandIn()
    game.renamed = {"enemy_health_0": "enemy_distance_0", "enemy_distance_0": "enemy_health_0"}
    with pytest.raises(
        EnvError, match="this SMACv2 lays out its 65 entries .* in another way than the 65 of docs/smac"
    ):
        adapted(game)


@dataclasses.dataclass(frozen=True)
class StandInConfig:
    def build(self) -> Smacv2Env:
        return adapted(StandIn())


def test_nothing_is_found_wrong() -> None:
    assert check_env(StandInConfig()) == []


def test_the_end_of_time_is_a_truncation() -> None:
    game = StandIn()
    for limit in (None, 4):
        env = adapted(game, episode_steps=limit)
        assert env.spec.episode_steps == (limit or LIMIT)
        env.reset(0)
        game.places[: game.n_agents], game.places[game.n_agents :] = 2.0, 30.0
        stop = np.zeros((3, 10), np.float32)
        stop[:, 1] = 1.0
        ends = [env.step(stop)[3:5] for _ in range(env.spec.episode_steps)]
        assert ends == [(False, False)] * (env.spec.episode_steps - 1) + [(False, True)]
        with pytest.raises(EnvError, match="after the episode's end"):
            env.step(stop)


def test_a_battle_s_end_terminates_and_tells_who_won() -> None:
    env, won = adapted(StandIn(4, 1, shields=False)), 0.0
    rng = np.random.default_rng(0)
    for seed in range(10):
        env.reset(seed)
        while True:
            result = env.step(random_preferences(env, rng))
            assert not (result.info["won"] and not result.terminated)
            if result.terminated or result.truncated:
                won += result.info["won"]
                break
    assert won > 0


def test_a_game_that_is_lost_truncates() -> None:
    env = adapted(StandIn(broken_at=2))
    env.reset(0)
    assert env.step(np.zeros((3, 10), np.float32))[3:5] == (False, False)
    assert env.step(np.zeros((3, 10), np.float32))[3:5] == (False, True)


def test_a_seed_decides_teams_and_places_and_other_generators_stay_apart() -> None:
    first, second = StandIn(), StandIn()
    states = [adapted(game).reset(seed).state for game, seed in ((first, 5), (second, 5), (first, 6))]
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any()
    generators = [first.env_key_to_distribution_map["start"].near.rng, first.env_key_to_distribution_map["start"].rng]
    assert generators[0].random() != generators[1].random()


NAMED = {
    *("map_name", "difficulty", "prob_obs_enemy", "obs_own_pos", "use_unit_ranges", "min_attack_range"),
    *("continuing_episode", "capability_config"),
}
"""Parameters of `StarCraft2Env` that are set; all are in its source."""


@pytest.mark.parametrize("path", [path for path in CONFIGS.glob("*.yaml") if path.stem != "base"], ids=lambda p: p.stem)
def test_a_task_is_its_file_s(path: Path) -> None:
    task = Smacv2Config(**read(path.stem))
    assert task.env_id == f"smacv2/{path.stem}"
    arguments = task.arguments()
    assert set(arguments) == NAMED
    capabilities = arguments["capability_config"]
    assert sorted(capabilities) == ["n_enemies", "n_units", "start_positions", "team_gen"]
    assert f"{capabilities['n_units']}v{capabilities['n_enemies']}" in task.env_id
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"race": "human"}, "expected zerg, protoss or terran"),
        ({"num_allies": 0}, "num_allies = 0: expected at least 1"),
        ({"type_weights": [0.5, 0.5]}, "a share of each of zergling, hydralisk, baneling"),
        ({"never_alone": ["zergling", "hydralisk", "baneling"]}, "some of unit_types, but not all"),
        ({"difficulty": "10"}, "expected 1 to 9 or A"),
        ({"prob_obs_enemy": 2}, "expected 0 to 1"),
        ({"episode_steps": 0}, "expected at least 1, or null"),
        ({"hide": "all"}, "expected one of none"),
    ],
)
def test_values_that_cannot_be_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(**changes)


def test_without_the_package_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DIMA_DEBUG", raising=False)
    monkeypatch.setitem(sys.modules, "smacv2", None)
    assert main(["train", "env=smacv2/zerg-5v5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("smacv2/zerg-5v5", "'smacv2", "git+https://github.com/oxwhirl/smacv2", "StarCraft II", "env=smax/"):
        assert part in line


def test_without_the_game_or_its_maps_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC2PATH", str(tmp_path / "sc2"))
    folder = game_folder()
    assert folder == tmp_path / "sc2"
    with pytest.raises(ConfigError, match=r"no StarCraft II in .*s2client-proto#downloads\), or .*SC2PATH; env=smax/"):
        check_game("smacv2/zerg-5v5", folder)
    (folder / "Versions").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"map 32x32_flat.SC2Map is not below .*SMAC_Maps.*; env=smax/"):
        check_game("smacv2/zerg-5v5", folder)
    (folder / "Maps" / "SMAC_Maps").mkdir(parents=True)
    (folder / "Maps" / "SMAC_Maps" / "32x32_flat.SC2Map").touch()
    check_game("smacv2/zerg-5v5", folder)
