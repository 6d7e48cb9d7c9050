"""Observations are standardised entry by entry, and padding and ids come back exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.support.transformer_models import UNEQUAL
from worldmodel.contract.random_data import random_obs
from worldmodel.normalize import RunningNormalizer
from worldmodel.transformer.layout import ObservationLayout


def data() -> Tensor:
    """Observations [50,3,7] whose entries differ in scale and mean from agent to agent."""
    obs = random_obs(UNEQUAL, 50, torch.Generator().manual_seed(0))
    scale = torch.arange(1.0, 13.0).view(3, 4) * UNEQUAL.obs_mask()[:, :4]
    obs[:, :, :4] = obs[:, :, :4] * scale + scale
    return obs


def build(obs: Tensor) -> ObservationLayout:
    norm = RunningNormalizer(3 * 7, std_floor=1e-2)
    norm.update(obs.flatten(1))
    return ObservationLayout(UNEQUAL, norm)


def test_every_entry_is_standardised_by_its_own_statistics() -> None:
    obs = data()
    z = build(obs).normalize(obs)
    assert z.shape == (50, 3, 4)
    for agent, size in enumerate(UNEQUAL.obs_sizes):
        for entry in range(size):
            values = obs[:, agent, entry]
            expected = (values - values.mean()) / values.std(correction=0)
            torch.testing.assert_close(z[:, agent, entry], expected, atol=1e-4, rtol=1e-4)
        assert not z[:, agent, size:].any()


def test_observations_come_back_with_exact_padding_and_ids() -> None:
    obs = data()
    layout = build(obs)
    back = layout.denormalize(layout.normalize(obs) + 0.0)
    torch.testing.assert_close(back, obs, atol=1e-4, rtol=1e-4)
    noisy = layout.denormalize(torch.randn(50, 3, 4))
    assert not noisy[:, ~UNEQUAL.obs_mask()].any()
    assert torch.equal(noisy[:, :, 4:], torch.eye(3).expand(50, 3, 3))


def test_standardised_observations_keep_their_ids() -> None:
    obs = data()
    layout = build(obs)
    z = layout.normalize(obs)
    assert torch.equal(layout.standardized(z), torch.cat([z, obs[:, :, 4:]], dim=-1))


def test_the_joint_vector_holds_every_real_entry_once() -> None:
    layout = build(data())
    z = torch.arange(12.0).view(1, 3, 4)
    assert layout.joint(z).tolist() == [[0, 1, 4, 5, 6, 7, 8, 9, 10]]
    assert layout.joint_size == 9
