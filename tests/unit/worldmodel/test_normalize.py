"""Running statistics against numpy on the whole data, and the promises about constant and rare dimensions."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.contract.random_data import random_trajectory
from worldmodel.normalize import RunningNormalizer, absorb
from worldmodel.types import EnvSpec


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_any_split_equals_statistics_of_all_rows(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(sum(sizes), 3)) * [1e-3, 1.0, 1e4] + [1e3, 0.0, -5.0]
    normalizer = RunningNormalizer(3, std_floor=0.0)
    for chunk in np.split(data, np.cumsum(sizes)[:-1]):
        normalizer.update(torch.tensor(chunk))
    np.testing.assert_allclose(normalizer.mean.numpy(), data.mean(0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(normalizer.var.numpy(), data.var(0), rtol=1e-7, atol=1e-12)
    assert normalizer.count.item() == len(data)


def test_large_mean_keeps_its_variance() -> None:
    data = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-2 + 1e4
    normalizer = RunningNormalizer(1, std_floor=0.0)
    for chunk in data.split(100):
        normalizer.update(chunk)
    torch.testing.assert_close(normalizer.var.sqrt(), data.std(0, correction=0), rtol=1e-6, atol=0.0)


def test_identity_before_data() -> None:
    normalizer = RunningNormalizer(4, std_floor=0.01)
    x = torch.randn(5, 2, 4)
    assert torch.equal(normalizer.normalize(x), x)
    assert torch.equal(normalizer.denormalize(x), x)


def test_constant_dimension_is_exactly_zero_and_floor_applies_to_rare_ones() -> None:
    rows = torch.zeros(1000, 3)
    rows[:, 0] = 0.1  # not representable exactly: rounding must not be magnified
    rows[0, 1] = 0.1  # rare: std 0.0032, below the floor
    rows[:, 2] = torch.linspace(-1, 1, 1000)
    normalizer = RunningNormalizer(3, std_floor=0.01)
    normalizer.update(rows)
    z = normalizer.normalize(torch.tensor([[7.0, 0.1, 1.0]]))
    assert z[0, 0].item() == 0.0
    assert z[0, 1].item() == pytest.approx((0.1 - 1e-4) / 0.01, rel=1e-4)
    back = normalizer.denormalize(torch.tensor([[3.0, 0.0, 0.0]]))
    assert back[0, 0].item() == pytest.approx(0.1)


def test_denormalize_inverts_normalize() -> None:
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(1)) * 3 + 2
    normalizer = RunningNormalizer(6, std_floor=0.01)
    normalizer.update(rows)
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(rows)), rows)
    z = normalizer.normalize(rows)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(6), rtol=1e-4, atol=0.0)


def test_leading_axes_are_rows() -> None:
    rows = torch.randn(4, 5, 3)
    one, other = RunningNormalizer(3, std_floor=0.0), RunningNormalizer(3, std_floor=0.0)
    one.update(rows)
    other.update(rows.flatten(0, 1))
    assert torch.equal(one.var, other.var)


def test_freezes_after_enough_rows_and_stays_frozen_after_loading() -> None:
    normalizer = RunningNormalizer(2, std_floor=0.0, freeze_after=10)
    normalizer.update(torch.randn(10, 2))
    assert normalizer.frozen
    before = normalizer.mean.clone()
    loaded = RunningNormalizer(2, std_floor=0.0, freeze_after=10)
    loaded.load_state_dict(normalizer.state_dict())
    loaded.update(torch.randn(50, 2) + 3)
    assert torch.equal(loaded.mean, before)
    x = torch.randn(3, 2)
    assert torch.equal(loaded.normalize(x), normalizer.normalize(x))


def test_refuses_bad_rows() -> None:
    normalizer = RunningNormalizer(2, std_floor=0.0)
    with pytest.raises(ValueError, match="last axis of 2"):
        normalizer.update(torch.zeros(3, 3))
    with pytest.raises(FloatingPointError):
        normalizer.update(torch.tensor([[0.0, float("nan")]]))
    assert normalizer.count.item() == 0


def test_an_episode_in_stretches_counts_as_the_whole() -> None:
    spec = EnvSpec("two", 2, 3, obs_sizes=(4, 2), action_sizes=(1, 1), episode_steps=20)
    episode = random_trajectory(spec, 20, torch.Generator().manual_seed(0))
    sizes = {"state": 3, "change": 3, "obs": 8, "reward": 1}
    whole, cut = ({name: RunningNormalizer(size, std_floor=0.0) for name, size in sizes.items()} for _ in range(2))

    absorb(episode, **whole)
    for start, stop in ((0, 12), (12, 13), (13, 20)):
        steps = {name: getattr(episode, name)[start:stop] for name in ("action", "reward", "terminated", "truncated")}
        states = {name: getattr(episode, name)[start : stop + 1] for name in ("obs", "state")}
        absorb(dataclasses.replace(episode, **steps, **states, is_start=start == 0), **cut)

    state = episode.state.double()
    rows = {
        "state": state,
        "change": state.diff(dim=0),
        "obs": episode.obs.flatten(1),
        "reward": episode.reward[:, None],
    }
    for name, expected in rows.items():
        for norm in (whole[name], cut[name]):
            assert norm.count.item() == len(expected), name
            torch.testing.assert_close(norm.mean, expected.double().mean(dim=0))
            torch.testing.assert_close(norm.var, expected.double().var(dim=0, correction=0))
