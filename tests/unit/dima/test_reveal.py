"""Which agents each noise level may see, in sampling and in training."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dima.reveal import ActionReveal, Order, Reveal, conditioning_order
from dima.schedule import karras_sigmas, two_phase_sigmas
from worldmodel.config import ConfigError

REVEALS: tuple[Reveal, ...] = ("one", "cumulative", "progressive", "joint", "none")


def make(reveal: Reveal, order: Order, num_agents: int, num_steps: int) -> ActionReveal:
    return ActionReveal(reveal, order, num_agents, karras_sigmas(num_steps, 0.002, 5.0, 7.0))


def make_phases(reveal: Reveal, order: Order, num_agents: int, reveal_steps: int, refine_steps: int) -> ActionReveal:
    """Everybody shown within the first `reveal_steps` levels, from 5 down to 2."""
    sigmas = two_phase_sigmas(reveal_steps, refine_steps, 0.02, 2.0, 5.0, 7.0)
    return ActionReveal(reveal, order, num_agents, sigmas, reveal_steps)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shown(masks: Tensor) -> list[set[int]]:
    """The agents, from 1, that each row of masks [*,N] shows."""
    return [{i + 1 for i, visible in enumerate(row) if visible} for row in masks.tolist()]


@pytest.mark.parametrize(
    ("order", "num_agents", "num_steps", "expected"),
    [
        ("ascending", 2, 4, (0, 0, 1, 1)),
        ("descending", 2, 4, (1, 1, 0, 0)),
        ("cycle", 2, 4, (0, 1, 0, 1)),
        ((2, 1, 1, 2), 2, 4, (1, 0, 0, 1)),
        ("ascending", 3, 3, (0, 1, 2)),
        ("descending", 3, 3, (2, 1, 0)),
        ("descending", 6, 6, (5, 4, 3, 2, 1, 0)),
        ("cycle", 3, 5, (0, 1, 2, 0, 1)),
        ((3, 1, 2), 3, 3, (2, 0, 1)),
        ("descending", 1, 2, (0, 0)),
    ],
)
def test_orders(order: Order, num_agents: int, num_steps: int, expected: tuple[int, ...]) -> None:
    assert conditioning_order(order, num_agents, num_steps) == expected


@given(num_agents=st.integers(1, 7), extra=st.integers(0, 9))
def test_blocks_are_balanced_and_name_everybody(num_agents: int, extra: int) -> None:
    ascending = conditioning_order("ascending", num_agents, num_agents + extra)
    descending = conditioning_order("descending", num_agents, num_agents + extra)
    assert ascending is not None
    assert descending is not None

    sizes = [len(list(block)) for _, block in itertools.groupby(ascending)]
    assert sorted(ascending) == list(ascending)
    assert len(sizes) == num_agents
    assert max(sizes) - min(sizes) <= 1
    assert descending == tuple(num_agents - 1 - agent for agent in ascending)


@pytest.mark.parametrize(
    ("order", "num_agents", "num_steps", "message"),
    [
        ((1, 2), 2, 4, "expected 4 agent numbers"),
        ((1, 1, 1, 1), 2, 4, "each of 1..2"),
        ((0, 1, 0, 1), 2, 4, "each of 1..2"),
        ((1, 2, 3, 1), 2, 4, "each of 1..2"),
        ("descending", 3, 2, "num_denoising_steps = 2 for 3 agents"),
        ("random", 3, 2, "at least one step an agent"),
    ],
)
def test_impossible_orders_are_refused(order: Order, num_agents: int, num_steps: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("one", order, num_agents, num_steps)


@pytest.mark.parametrize("reveal", ["joint", "none"])
def test_without_an_order_any_number_of_steps_will_do(reveal: Reveal) -> None:
    assert make(reveal, "descending", 3, 2).sampling_masks(seeded()).shape == (2, 3)


@pytest.mark.parametrize(
    ("reveal", "expected"),
    [
        ("one", [{2}, {1}, {1}, {2}]),
        ("cumulative", [{2}, {1, 2}, {1, 2}, {1, 2}]),
        ("progressive", [{2}, {1, 2}, {1, 2}, {1, 2}]),
        ("joint", [{1, 2}] * 4),
        ("none", [set()] * 4),
    ],
)
def test_sampling_masks_of_an_explicit_order(reveal: Reveal, expected: list[set[int]]) -> None:
    generator = seeded()
    before = generator.get_state()

    assert shown(make(reveal, (2, 1, 1, 2), 2, 4).sampling_masks(generator)) == expected
    assert torch.equal(before, generator.get_state()), "a fixed order draws nothing"


@pytest.mark.parametrize("reveal", ["cumulative", "progressive"])
def test_blocks_show_the_second_agent_only_when_the_noise_is_low(reveal: Reveal) -> None:
    assert shown(make(reveal, "descending", 2, 4).sampling_masks(seeded())) == [{2}, {2}, {1, 2}, {1, 2}]


@given(num_agents=st.integers(1, 6), extra=st.integers(0, 8), seed=st.integers(0, 99))
def test_a_random_order_is_balanced_and_shows_everybody_early(num_agents: int, extra: int, seed: int) -> None:
    masks = make("one", "random", num_agents, num_agents + extra).sampling_masks(seeded(seed))
    agents = [agent for row in shown(masks) for agent in row]

    assert masks.sum(dim=1).eq(1).all()
    assert set(agents[:num_agents]) == set(range(1, num_agents + 1))
    counts = Counter(agents).values()
    assert max(counts) - min(counts) <= 1


def test_a_random_order_is_drawn_anew_and_from_the_generator() -> None:
    reveal = make("one", "random", 3, 3)
    generator = seeded(7)
    drawn = [tuple(reveal.sampling_masks(generator).int().argmax(dim=1).tolist()) for _ in range(1200)]

    assert drawn[0] == tuple(reveal.sampling_masks(seeded(7)).int().argmax(dim=1).tolist())
    counts = Counter(drawn)
    assert set(counts) == set(itertools.permutations(range(3)))
    assert all(abs(count - 200) < 4 * 200**0.5 for count in counts.values())


def test_in_training_one_agent_is_seen_and_it_is_uniform() -> None:
    masks = make("one", "descending", 3, 3).training_masks(torch.ones(30_000), seeded())

    assert masks.sum(dim=1).eq(1).all()
    torch.testing.assert_close(masks.float().mean(dim=0), torch.full((3,), 1 / 3), rtol=0, atol=0.011)


def test_in_training_cumulative_shows_a_uniform_number_of_random_agents() -> None:
    masks = make("cumulative", "descending", 3, 3).training_masks(torch.ones(30_000), seeded())

    subsets = Counter(frozenset(row) for row in shown(masks))
    expected = {1: 1 / 9, 2: 1 / 9, 3: 1 / 3}  # a third for each size, shared by the subsets of that size
    assert len(subsets) == 7
    for subset, count in subsets.items():
        assert count / 30_000 == pytest.approx(expected[len(subset)], abs=0.011), subset


@pytest.mark.parametrize(
    ("order", "num_agents", "counts"),
    [
        ("cycle", 2, (1, 2, 2, 2)),
        ("descending", 2, (1, 1, 2, 2)),
        ("random", 3, (1, 2, 3, 3)),
        ("cycle", 4, (1, 2, 3, 4)),
    ],
)
def test_in_training_progressive_shows_as_many_as_the_nearest_level(
    order: Order, num_agents: int, counts: tuple[int, ...]
) -> None:
    reveal = make("progressive", order, num_agents, 4)
    ladder = karras_sigmas(4, 0.002, 5.0, 7.0)[:-1]
    middles = [(upper * lower) ** 0.5 for upper, lower in itertools.pairwise(ladder)]  # half-way in log sigma
    sigma = torch.tensor([50.0, *ladder, *(1.01 * m for m in middles), *(0.99 * m for m in middles), 1e-4])
    expected = [counts[0], *counts, *counts[:3], *counts[1:], counts[3]]

    masks = reveal.training_masks(sigma, seeded())

    assert masks.sum(dim=1).tolist() == expected


def test_in_training_progressive_picks_the_agents_at_random() -> None:
    reveal = make("progressive", "cycle", 3, 3)
    masks = reveal.training_masks(torch.full((30_000,), reveal.sigmas[1].item()), seeded())

    assert masks.sum(dim=1).eq(2).all()
    torch.testing.assert_close(masks.float().mean(dim=0), torch.full((3,), 2 / 3), rtol=0, atol=0.011)


@pytest.mark.parametrize(("reveal", "value"), [("joint", True), ("none", False)])
def test_in_training_the_ablations_show_all_or_nothing(reveal: Reveal, value: bool) -> None:
    masks = make(reveal, "descending", 3, 3).training_masks(torch.ones(5), seeded())

    assert masks.tolist() == [[value] * 3] * 5


@pytest.mark.parametrize(
    ("order", "num_agents", "reveal_steps", "expected"),
    [
        ("cycle", 3, 3, [{1}, {1, 2}, {1, 2, 3}, {1, 2, 3}]),
        ("ascending", 3, 3, [{1}, {1, 2}, {1, 2, 3}, {1, 2, 3}]),
        ("descending", 3, 3, [{3}, {2, 3}, {1, 2, 3}, {1, 2, 3}]),
        ((2, 1, 3), 3, 3, [{2}, {1, 2}, {1, 2, 3}, {1, 2, 3}]),
        ("cycle", 5, 2, [{1, 2, 3}, {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}]),
        ("descending", 4, 1, [{1, 2, 3, 4}, {1, 2, 3, 4}]),
        ("cycle", 2, 4, [{1}, {1}, {1, 2}, {1, 2}, {1, 2}]),
    ],
)
def test_two_phases_show_everybody_in_the_first(
    order: Order, num_agents: int, reveal_steps: int, expected: list[set[int]]
) -> None:
    assert shown(make_phases("progressive", order, num_agents, reveal_steps, 1).sampling_masks(seeded())) == expected


@given(num_agents=st.integers(1, 20), reveal_steps=st.integers(1, 20), refine=st.integers(1, 4), seed=st.integers(0, 9))
def test_two_phases_in_a_random_order_share_the_agents_out_evenly(
    num_agents: int, reveal_steps: int, refine: int, seed: int
) -> None:
    masks = make_phases("progressive", "random", num_agents, reveal_steps, refine).sampling_masks(seeded(seed))
    counts = masks.sum(dim=1)
    new = counts[:reveal_steps].diff(prepend=torch.tensor([0]))

    assert (masks[1:] >= masks[:-1]).all(), "nobody is hidden again"
    assert counts[reveal_steps - 1 :].eq(num_agents).all()
    assert new.max() - new.min() <= 1
    assert counts[0] >= 1


def test_two_phases_in_a_random_order_favour_nobody() -> None:
    reveal = make_phases("progressive", "random", 3, 3, 1)
    generator = seeded()
    first = Counter(shown(reveal.sampling_masks(generator)[:1])[0].pop() for _ in range(1200))

    assert set(first) == {1, 2, 3}
    assert all(abs(count - 400) < 4 * 400**0.5 for count in first.values())


@pytest.mark.parametrize("order", ["cycle", "random"])
@pytest.mark.parametrize(("num_agents", "reveal_steps"), [(2, 2), (6, 6), (6, 3), (3, 5)])
def test_in_training_as_many_are_shown_as_in_sampling_level_by_level(
    order: Order, num_agents: int, reveal_steps: int
) -> None:
    reveal = make_phases("progressive", order, num_agents, reveal_steps, 3)

    trained = reveal.training_masks(reveal.sigmas[:-1].repeat_interleave(20), seeded()).sum(dim=1)

    sampled = reveal.sampling_masks(seeded(1)).sum(dim=1)
    assert trained.tolist() == sampled.repeat_interleave(20).tolist()
    below = reveal.training_masks(torch.full((20,), 0.9 * reveal.sigmas[reveal_steps - 1].item()), seeded())
    assert below.all(), "where it matters, everybody"


@pytest.mark.parametrize(
    ("reveal", "expected"),
    [
        ("progressive", (True, True, False, False)),
        ("one", (True, False, False, False)),
        ("joint", (True, False, False, False)),
        ("none", (False, False, False, False)),
    ],
)
def test_the_levels_that_show_more_than_the_one_before(reveal: Reveal, expected: tuple[bool, ...]) -> None:
    assert make(reveal, "cycle", 2, 4).grows == expected
    assert make(reveal, "random", 2, 4).grows == expected


def test_one_agent_a_level_cannot_show_everybody() -> None:
    with pytest.raises(ConfigError, match=r"reveal = one with sampler\.reveal_sigma: expected reveal=progressive"):
        make_phases("one", "cycle", 2, 2, 2)


def test_two_phases_name_each_agent_once() -> None:
    with pytest.raises(ConfigError, match="expected 2 agent numbers"):
        make_phases("progressive", (1, 2, 1, 2), 2, 2, 2)


@pytest.mark.parametrize("reveal", REVEALS)
def test_masks_are_no_part_of_a_checkpoint(reveal: Reveal) -> None:
    assert make(reveal, "cycle", 2, 4).state_dict() == {}


@pytest.mark.parametrize("order", ["descending", "cycle", "random"])
@pytest.mark.parametrize("reveal", ["one", "cumulative", "progressive", "joint", "none"])
@pytest.mark.parametrize(("num_agents", "steps"), [(1, 1), (2, 4), (3, 3), (3, 8)])
def test_distinct_masks_are_the_masks_without_repetitions(
    reveal: Reveal, order: Order, num_agents: int, steps: int
) -> None:
    schedule = make(reveal, order, num_agents, steps)
    for seed in range(5):
        masks, level = schedule.distinct_masks(seeded(seed))

        assert torch.equal(masks[level], schedule.sampling_masks(seeded(seed)))
        assert len({tuple(mask) for mask in masks.tolist()}) == len(masks)
        assert len(masks) <= (1 if reveal in ("joint", "none") else num_agents)


def test_distinct_masks_of_two_phases_are_one_a_group_of_agents() -> None:
    schedule = make_phases("progressive", "random", 5, 2, 3)

    masks, level = schedule.distinct_masks(seeded(3))

    assert torch.equal(masks[level], schedule.sampling_masks(seeded(3)))
    assert masks.sum(dim=1).tolist() == [3, 5]
    assert level.tolist() == [0, 1, 1, 1, 1]
