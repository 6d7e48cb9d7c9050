"""Units: what is absorbed, and that rewards find their way back."""

from __future__ import annotations

import dataclasses

import torch

from tests.support.rssm_models import UNEQUAL
from worldmodel.contract.random_data import random_trajectory
from worldmodel.rssm.units import Units


def build() -> Units:
    units = Units(UNEQUAL, 0.01, None)
    trajectory = random_trajectory(UNEQUAL, 200, torch.Generator().manual_seed(0))
    units.update(dataclasses.replace(trajectory, reward=5 + 2 * trajectory.reward))
    return units


def test_states_observations_and_rewards_are_absorbed() -> None:
    units = build()

    assert [float(norm.count) for norm in (units.state, units.obs, units.reward)] == [201, 201, 200]


def test_rewards_go_there_and_back() -> None:
    units, reward = build(), torch.tensor([4.0, 7.0, -2.0])

    torch.testing.assert_close(units.env_reward(units.normalize_reward(reward)), reward)
    torch.testing.assert_close(units.env_reward(torch.zeros(1)), torch.tensor([5.0]), atol=0.5, rtol=0)
