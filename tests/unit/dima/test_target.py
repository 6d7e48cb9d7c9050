"""What is denoised: the state or its change, there and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dima.target import StateTarget, Target
from worldmodel.normalize import RunningNormalizer

SIGMA_DATA = 0.5


def _walk() -> Tensor:
    """[T+1,3] states: a fast, a slow and a constant dimension."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(500, 3, generator=generator) * torch.tensor([2.0, 0.01, 0.0])
    return torch.cat([torch.zeros(1, 3), steps.cumsum(0)]) + torch.tensor([0.0, 5.0, 7.0])


def _norms(states: Tensor) -> tuple[RunningNormalizer, RunningNormalizer]:
    state_norm, change_norm = RunningNormalizer(3, std_floor=1e-2), RunningNormalizer(3, std_floor=1e-4)
    state_norm.update(states)
    change_norm.update(states.diff(dim=0))
    return state_norm, change_norm


@pytest.mark.parametrize("kind", ["state", "change"])
def test_decode_inverts_encode(kind: Target) -> None:
    states = _walk()
    state_norm, change_norm = _norms(states)
    target = StateTarget(kind, SIGMA_DATA, state_norm, change_norm)
    y = SIGMA_DATA * state_norm.normalize(states)
    restored = target.decode(y[:-1], target.encode(y[:-1], y[1:]))
    torch.testing.assert_close(restored, y[1:], atol=1e-5, rtol=1e-5)


def test_state_is_the_next_state_itself() -> None:
    target = StateTarget("state", SIGMA_DATA, *_norms(_walk()))
    now, following = torch.randn(4, 3), torch.randn(4, 3)
    assert target.encode(now, following) is following


def test_change_is_standardised_in_every_live_dimension() -> None:
    """Against the definition, from raw states; a constant dimension gives exactly 0."""
    states = _walk()
    state_norm, change_norm = _norms(states)
    target = StateTarget("change", SIGMA_DATA, state_norm, change_norm)
    y = SIGMA_DATA * state_norm.normalize(states)
    encoded = target.encode(y[:-1], y[1:])
    change = states.diff(dim=0)
    naive = SIGMA_DATA * (change - change.mean(0)) / change.std(0, correction=0)
    torch.testing.assert_close(encoded[:, :2], naive[:, :2], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(encoded[:, :2].std(0, correction=0), torch.full((2,), SIGMA_DATA), atol=1e-3, rtol=0)
    assert (encoded[:, 2] == 0).all()
