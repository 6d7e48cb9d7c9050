"""A step is kept as far as a test allows, by halves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dima.run.step_back import copy_state, step_back


def moved(by: float) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A module whose weights went from somewhere to `by` more, and where they were."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = copy_state(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by)
    return module, before


@pytest.mark.parametrize(
    ("limit", "share", "asked"), [(9.0, 1.0, 1), (4.1, 0.5, 2), (2.0, 0.25, 3), (1.0, 0.125, 4), (0.9, 0.0, 4)]
)
def test_the_farthest_good_place_is_taken(limit: float, share: float, asked: int) -> None:
    module, before = moved(8.0)
    after, places = copy_state(module), list[float]()

    def is_good() -> bool:
        places.append(float((next(module.parameters()) - before["0.weight"]).max()))
        return places[-1] <= limit + 1e-3

    assert step_back(module, before, is_good) == share
    assert len(places) == asked
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, before[name] + share * (after[name] - before[name]))


@pytest.mark.parametrize("is_good", [True, False])
def test_the_ends_are_exact(is_good: bool) -> None:
    module, before = moved(0.1)
    expected = copy_state(module) if is_good else before
    step_back(module, before, lambda: is_good)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())
