"""Observations are standardised entry by entry, packed and spread, and padding and ids come back exactly."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.support.transformer_models import UNEQUAL
from worldmodel.contract.random_data import random_obs
from worldmodel.normalize import RunningNormalizer
from worldmodel.observation_layout import ObservationLayout
from worldmodel.types import EnvSpec

PLAIN = dataclasses.replace(UNEQUAL, appends_agent_id=False)
SPECS = pytest.mark.parametrize("spec", [UNEQUAL, PLAIN], ids=["with ids", "without ids"])
OWN_MASK = PLAIN.obs_mask()


def data(spec: EnvSpec) -> Tensor:
    """Observations [50,N,O] whose entries differ in scale and mean from agent to agent."""
    obs = random_obs(spec, 50, torch.Generator().manual_seed(0))
    scale = torch.arange(1.0, 13.0).view(3, 4) * OWN_MASK
    obs[:, :, :4] = obs[:, :, :4] * scale + scale
    return obs


def build(spec: EnvSpec) -> ObservationLayout:
    norm = RunningNormalizer(spec.num_agents * spec.obs_dim, std_floor=1e-2)
    norm.update(data(spec).flatten(1))
    return ObservationLayout(spec, norm)


@SPECS
def test_every_own_entry_is_standardised_by_its_own_statistics_and_nothing_else(spec: EnvSpec) -> None:
    obs, layout = data(spec), build(spec)
    normal = layout.normalize(obs)
    for agent, size in enumerate(spec.obs_sizes):
        for entry in range(size):
            values = obs[:, agent, entry]
            expected = (values - values.mean()) / values.std(correction=0)
            torch.testing.assert_close(normal[:, agent, entry], expected, atol=1e-4, rtol=1e-4)
        assert not normal[:, agent, size:4].any()
    assert torch.equal(normal[:, :, 4:], obs[:, :, 4:])
    assert torch.equal(layout.normalized_rows(obs), normal[:, :, :4])
    assert torch.equal(layout.row_mask, OWN_MASK)


@SPECS
def test_observations_come_back_with_exact_padding_and_ids(spec: EnvSpec) -> None:
    obs, layout = data(spec), build(spec)
    rows = layout.normalized_rows(obs)
    for normal in (
        layout.normalize(obs),
        layout.spread_rows(rows),
        layout.spread_rows(rows + 100 * ~layout.row_mask),  # a network may say anything of the padding
        layout.spread(layout.pack(layout.normalize(obs))),
    ):
        back = layout.denormalize(normal)
        torch.testing.assert_close(back, obs, atol=1e-4, rtol=1e-4)
        assert torch.equal(back[:, ~layout.is_own], obs[:, ~layout.is_own])


@SPECS
def test_completing_writes_what_is_known_and_leaves_the_rest(spec: EnvSpec) -> None:
    obs, layout = data(spec), build(spec)
    assert torch.equal(layout.complete(torch.where(layout.is_own, obs, 7.0)), obs)


@SPECS
def test_packed_vectors_hold_every_own_entry_once(spec: EnvSpec) -> None:
    layout, rows = build(spec), torch.arange(12.0).view(1, 3, 4)
    packed = layout.pack(layout.spread_rows(rows))
    assert packed.tolist() == [[0, 1, 4, 5, 6, 7, 8, 9, 10]]
    assert layout.packed_dim == 9
    assert torch.equal(layout.spread(packed), layout.spread_rows(rows * OWN_MASK))


def test_any_number_of_leading_axes_will_do() -> None:
    obs, layout = data(UNEQUAL), build(UNEQUAL)
    many = obs.unflatten(0, (5, 10))
    for change in (layout.normalize, layout.denormalize, layout.complete, layout.normalized_rows, layout.pack):
        assert torch.equal(change(many).flatten(0, 1), change(obs))
    assert torch.equal(layout.spread(layout.pack(many)).flatten(0, 1), layout.spread(layout.pack(obs)))


def test_statistics_stay_with_their_owner() -> None:
    assert build(UNEQUAL).state_dict() == {}


def test_statistics_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="obs_norm holds 5 entries, expected N.O = 21"):
        ObservationLayout(UNEQUAL, RunningNormalizer(5, std_floor=1e-2))
