"""Poisson(1) counts that belong to a transition and a member, whatever else is asked with them."""

from __future__ import annotations

import math

import torch

from worldmodel.ensemble.bootstrap import Bootstrap

MEMBERS, COLUMNS, ROWS = 5, 7, 50_000


def transitions(seed: int = 0) -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def test_counts_have_the_law_of_poisson_for_every_member() -> None:
    counts = Bootstrap(MEMBERS, COLUMNS)(transitions())
    for k in range(5):
        share, expected = (counts == k).float().mean(dim=1), math.exp(-1) / math.factorial(k)
        assert float((share - expected).abs().max()) < 5 * math.sqrt(expected / ROWS), k


def test_members_are_independent() -> None:
    correlation = torch.corrcoef(Bootstrap(MEMBERS, COLUMNS)(transitions()))
    assert float((correlation - torch.eye(MEMBERS)).abs().max()) < 5 / math.sqrt(ROWS)


def test_numbers_that_hardly_differ_are_independent() -> None:
    first = transitions()
    nearby = torch.nextafter(first, torch.tensor(math.inf))
    bootstrap = Bootstrap(1, COLUMNS)
    correlation = torch.corrcoef(torch.cat([bootstrap(first), bootstrap(nearby)]))
    assert abs(float(correlation[0, 1])) < 5 / math.sqrt(ROWS)


def test_a_transition_always_counts_as_often() -> None:
    data, order = transitions(), torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))[:1000]
    counts = Bootstrap(MEMBERS, COLUMNS)(data)
    torch.manual_seed(7)  # nothing of it depends on torch's own generator
    assert torch.equal(Bootstrap(MEMBERS, COLUMNS)(data[order]), counts[:, order])
