"""The auxiliary observation against a loop that writes every entry down by itself."""

from __future__ import annotations

import pytest
import torch

from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_obs, random_trajectory
from worldmodel.inference.auxiliary import AuxiliaryConfig, AuxiliaryObservation
from worldmodel.protocol import Auxiliary
from worldmodel.types import EnvSpec

SPEC = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)


def lively(source: Auxiliary, steps: int) -> AuxiliaryObservation:
    observation = AuxiliaryObservation(AuxiliaryConfig(source, steps, 0.01), SPEC)
    observation.update_statistics(random_trajectory(SPEC, 30, torch.Generator().manual_seed(0)))
    return observation


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("source", ["own", "joint"])
def test_features_are_standardised_observations_in_order(source: Auxiliary, steps: int) -> None:
    observation = lively(source, steps)
    history = random_obs(SPEC, 4 * (steps + 1), torch.Generator().manual_seed(1)).unflatten(0, (4, -1))
    agent = torch.tensor([2, 0, 1, 2])
    x = observation(history, agent)
    assert x.shape == (4, observation.dim)
    seen = random_trajectory(SPEC, 30, torch.Generator().manual_seed(0)).obs.double()
    mean, std = seen.mean(dim=0), seen.std(dim=0, correction=0)
    for row in range(4):
        expected = []
        for step in range(steps + 1):
            for who in [int(agent[row])] if source == "own" else range(3):
                for entry in range(SPEC.obs_dim):
                    value, spread = float(history[row, step, who, entry]), float(std[who, entry])
                    constant = spread < 1e-6
                    expected.append(0.0 if constant else (value - float(mean[who, entry])) / max(spread, 0.01))
        if source == "own":
            expected += [float(who == int(agent[row])) for who in range(3)]
        torch.testing.assert_close(x[row], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_statistics_take_every_observation_once() -> None:
    whole = random_trajectory(SPEC, 30, torch.Generator().manual_seed(0))
    observation = AuxiliaryObservation(AuxiliaryConfig("own", 1, 0.01), SPEC)
    observation.update_statistics(whole.map(lambda t: t[: 11 if len(t) == 31 else 10]))
    rest = whole.map(lambda t: t[10:])
    observation.update_statistics(type(whole)(**{**vars(rest), "is_start": False}))
    assert float(observation.norm.count) == 31
    torch.testing.assert_close(observation.norm.mean, lively("own", 1).norm.mean)


def test_the_message_says_who_observed_what_and_when() -> None:
    observation = lively("own", 2)
    history = random_obs(SPEC, 12, torch.Generator().manual_seed(1)).unflatten(0, (4, -1))
    history[3, 0, 1, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="entry 2 of what agent 1 observed 2 steps ago"):
        observation.check(history, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("values", [("own", -1, 0.01), ("own", 0, 0.0), ("all", 0, 0.01)])
def test_values_without_sense_are_refused(values: tuple[Auxiliary, int, float]) -> None:
    with pytest.raises(ConfigError):
        AuxiliaryConfig(*values)
