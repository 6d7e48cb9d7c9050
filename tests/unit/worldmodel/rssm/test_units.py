"""Units and padding: what is normalised, what stays, and that the way back is exact."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.support.rssm_models import UNEQUAL
from worldmodel.contract.random_data import random_obs, random_trajectory
from worldmodel.rssm.units import Units
from worldmodel.types import EnvSpec

PLAIN = dataclasses.replace(UNEQUAL, appends_agent_id=False)


def build(spec: EnvSpec) -> Units:
    units = Units(spec, 0.01, None)
    trajectory = random_trajectory(spec, 200, torch.Generator().manual_seed(0))
    units.update(dataclasses.replace(trajectory, obs=3 * trajectory.obs, reward=5 + 2 * trajectory.reward))
    return units


@pytest.mark.parametrize("spec", [UNEQUAL, PLAIN], ids=["with ids", "without ids"])
def test_observations_come_back_with_padding_and_ids_exact(spec: EnvSpec) -> None:
    units, obs = build(spec), random_obs(spec, 7, torch.Generator().manual_seed(1))

    own = units.own_part(units.normalize_obs(obs))
    back = units.assemble_obs(own + 100 * ~units.own)  # a network may say anything of the padding

    torch.testing.assert_close(back, obs)
    assert not back[:, ~spec.obs_mask()].any()
    if spec.appends_agent_id:
        assert torch.equal(back[:, :, -3:], torch.eye(3).expand(7, 3, 3))


def test_real_numbers_are_standardised_and_ids_are_not() -> None:
    units, spec = build(UNEQUAL), UNEQUAL
    trajectory = random_trajectory(spec, 200, torch.Generator().manual_seed(0))
    normal = units.normalize_obs(3 * trajectory.obs)

    real = units.own_part(normal)[:, units.own]
    torch.testing.assert_close(real.mean(dim=0), torch.zeros(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(real.std(dim=0, correction=0), torch.ones(9), atol=1e-4, rtol=0)
    assert torch.equal(normal[:, :, -3:], 3 * trajectory.obs[:, :, -3:])


def test_a_stretch_that_goes_on_counts_its_first_state_once() -> None:
    whole = random_trajectory(UNEQUAL, 20, torch.Generator().manual_seed(2))
    split, at_once = Units(UNEQUAL, 0.01, None), Units(UNEQUAL, 0.01, None)
    at_once.update(whole)
    for start, stop in ((0, 12), (12, 20)):
        steps = {name: getattr(whole, name)[start:stop] for name in ("action", "reward", "terminated", "truncated")}
        states = {name: getattr(whole, name)[start : stop + 1] for name in ("obs", "state")}
        split.update(dataclasses.replace(whole, **steps, **states, is_start=start == 0))

    for (name, one), two in zip(at_once.named_buffers(), split.buffers(), strict=True):
        torch.testing.assert_close(one, two, msg=name)


def test_rewards_go_there_and_back() -> None:
    units, reward = build(UNEQUAL), torch.tensor([4.0, 7.0, -2.0])

    torch.testing.assert_close(units.env_reward(units.normalize_reward(reward)), reward)
    torch.testing.assert_close(units.env_reward(torch.zeros(1)), torch.tensor([5.0]), atol=0.5, rtol=0)
