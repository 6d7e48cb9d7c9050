"""Who acts in which episode, and that an episode depends on the dataset's seed and its own number alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dima.run.behaviour import (
    Behaviour,
    MixtureConfig,
    NoiseConfig,
    _spread,
    dataset_episode_seed,
    plan,
    play_episode,
)
from dima.run.folder import RunFolderError
from tests.support.point_team import PointTeamConfig
from worldmodel.config import ConfigError
from worldmodel.types import Trajectory

MIXTURE = MixtureConfig(0.2, 0.3, 0.5)
NOISE = NoiseConfig(std=(0.3, 1.0), time_steps=(2.0, 20.0))
ENV = PointTeamConfig(episode_steps=6)


def fake_run(folder: Path, steps: tuple[int, ...]) -> str:
    """What `plan` looks at: which checkpoints a run folder holds."""
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    return str(folder)


@given(
    weights=st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any),
    episodes=st.integers(1, 60),
)
def test_every_beginning_of_a_dataset_has_nearly_the_asked_shares(weights: list[int], episodes: int) -> None:
    shares = {Behaviour("policy", "run", number): weight / 20 for number, weight in enumerate(weights)}
    chosen = _spread(shares, episodes)
    assert len(chosen) == episodes
    for length in range(1, episodes + 1):
        counts = Counter(chosen[:length])
        for behaviour, share in shares.items():
            expected = length * share / sum(shares.values())
            assert -1.5 < counts[behaviour] - expected < 1, (length, behaviour)


def test_a_mixture_without_a_run_shares_among_random_and_noise() -> None:
    counts = Counter(behaviour.name for behaviour in plan("mixture", None, MIXTURE, 50))
    assert counts == {"random": 20, "ou": 30}


def test_a_mixture_visits_every_checkpoint(tmp_path: Path) -> None:
    run = fake_run(tmp_path, (0, 500, 1000))
    counts = Counter(behaviour.name for behaviour in plan("mixture", run, MIXTURE, 60))
    assert counts.pop("random") == 12
    assert counts.pop("ou") == 18
    assert counts == {"policy@00000000": 10, "policy@00000500": 10, "policy@00001000": 10}


def test_one_behaviour_alone(tmp_path: Path) -> None:
    run = fake_run(tmp_path, (0, 500))
    for policy, name in {"random": "random", "ou": "ou", f"run:{run}": "policy@00000500"}.items():
        assert [behaviour.name for behaviour in plan(policy, None, MIXTURE, 3)] == [name] * 3


def test_what_cannot_act_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy = 'rnadom': expected random, ou, scripted, run:DIR or mixture"):
        plan("rnadom", None, MIXTURE, 3)
    with pytest.raises(RunFolderError, match="no run folder at"):
        plan("mixture", str(tmp_path / "nowhere"), MIXTURE, 3)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        plan(f"run:{fake_run(tmp_path, ())}", None, MIXTURE, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseConfig(std=(0.0, 1.0), time_steps=(1.0, 2.0)), "std"),
        (lambda: NoiseConfig(std=(1.0, 0.5), time_steps=(1.0, 2.0)), "std"),
        (lambda: NoiseConfig(std=(0.1, 0.5), time_steps=(1.0,)), "time_steps"),
        (lambda: MixtureConfig(-0.1, 1.0, 0.0), "random = -0.1"),
        (lambda: MixtureConfig(0.0, 0.0, 1.0), "random = 0.0"),
    ],
)
def test_impossible_noise_and_mixtures_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def play(kind: str, seed: int, number: int) -> Trajectory:
    return play_episode(ENV, Behaviour(kind), NOISE, seed, number)


def same(a: Trajectory, b: Trajectory) -> bool:
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True))


@pytest.mark.parametrize("kind", ["random", "ou"])
def test_an_episode_is_a_function_of_seed_and_number(kind: str) -> None:
    first = play(kind, 5, 3)
    torch.manual_seed(99)  # torch's own generator plays no part, nor does what was played before
    play(kind, 5, 2)
    assert same(play(kind, 5, 3), first)
    others = [play(kind, 5, 4), play(kind, 6, 3)]
    assert not any(torch.equal(other.action, first.action) for other in others)
    assert len({first.seed, *(other.seed for other in others)}) == 3


@pytest.mark.parametrize("kind", ["random", "ou"])
def test_the_recorded_actions_replay_the_episode(kind: str) -> None:
    episode = play(kind, 5, 3)
    assert episode.seed == dataset_episode_seed(5, 3)
    env = ENV.build()
    observed = env.reset(episode.seed)
    for step in range(episode.length):
        assert np.array_equal(observed.state, episode.state[step].numpy())
        result = env.step(episode.action[step].numpy())
        assert np.float32(result.reward) == episode.reward[step].numpy()
        observed = result
    assert np.array_equal(observed.state, episode.state[-1].numpy())
    assert not episode.is_open


def test_every_episode_of_noise_has_its_own_strength() -> None:
    spreads = [float(play("ou", 0, number).action.std()) for number in range(12)]
    assert max(spreads) > 1.5 * min(spreads)
