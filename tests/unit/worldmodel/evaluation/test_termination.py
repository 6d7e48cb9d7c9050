"""Ranking and calibration of predicted terminations against naive loops and cases known by construction."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.evaluation.termination import area_under_curve, describe_termination


def describe(predicted: list[float], happened: list[int]) -> dict:
    """One sample, every step its own segment."""
    probability, terminated = torch.tensor(predicted)[:, None, None], torch.tensor(happened)[:, None].bool()
    return describe_termination(probability, terminated, torch.ones_like(terminated))


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Twelve segments of five steps, three samples; a segment is over once it has terminated."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(12, 3, 5, generator=generator)
    event = torch.rand(12, 5, generator=generator) < 0.2
    event[0, 0], event[1] = True, False
    valid = event.cumsum(dim=1) - event.long() == 0
    return probability, event & valid, valid


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_area_equals_the_loop_over_pairs(pairs: list[tuple[int, bool]]) -> None:
    score = torch.tensor([s / 5 for s, _ in pairs], dtype=torch.float64)
    positive = torch.tensor([p for _, p in pairs])
    highs, lows = score[positive].tolist(), score[~positive].tolist()
    wins = [1.0 if high > low else 0.5 if high == low else 0.0 for high in highs for low in lows]
    area = area_under_curve(score, positive)
    if wins:
        assert area == pytest.approx(sum(wins) / len(wins), rel=1e-12)
    else:
        assert area is None


@pytest.mark.parametrize(
    ("predicted", "area"),
    [([0.1, 0.2, 0.8, 0.9], 1.0), ([0.9, 0.8, 0.2, 0.1], 0.0), ([0.3, 0.3, 0.3, 0.3], 0.5)],
    ids=["perfect", "reversed", "constant"],
)
def test_area_of_known_rankings(predicted: list[float], area: float) -> None:
    assert describe(predicted, [0, 0, 1, 1])["auc"] == area


@given(seed=st.integers(0, 2**16))
def test_numbers_equal_naive_loops(seed: int) -> None:
    probability, terminated, valid = random_case(seed)
    found = describe_termination(probability, terminated, valid)
    steps = [
        (float(probability[b, :, t].double().mean()), int(terminated[b, t]))
        for b in range(12)
        for t in range(5)
        if valid[b, t]
    ]
    bins: list[list[tuple[float, int]]] = [[] for _ in range(10)]
    for p, y in steps:
        bins[min(int(p * 10), 9)].append((p, y))
    gaps = [abs(sum(p for p, _ in rows) - sum(y for _, y in rows)) for rows in bins]

    assert found["steps"] == len(steps)
    assert found["positives"] == sum(y for _, y in steps)
    assert found["brier"] == pytest.approx(sum((p - y) ** 2 for p, y in steps) / len(steps))
    assert found["base_rate"] == pytest.approx(sum(y for _, y in steps) / len(steps))
    assert found["mean_predicted"] == pytest.approx(sum(p for p, _ in steps) / len(steps))
    assert found["ece"] == pytest.approx(sum(gaps) / len(steps))
    for row, expected in zip(found["bins"], bins, strict=True):
        assert row["count"] == len(expected)
        if expected:
            assert row["predicted"] == pytest.approx(sum(p for p, _ in expected) / len(expected))
            assert row["observed"] == pytest.approx(sum(y for _, y in expected) / len(expected))
        else:
            assert row["predicted"] is row["observed"] is None


@given(seed=st.integers(0, 2**16))
def test_invalid_steps_have_no_influence(seed: int) -> None:
    probability, terminated, valid = random_case(seed)
    broken = probability.where(valid[:, None], torch.nan)
    assert describe_termination(broken, terminated | ~valid, valid) == describe_termination(
        probability, terminated, valid
    )


def test_true_probabilities_are_calibrated_and_exaggerated_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(20_000, 1, 1, generator=generator)
    happened = torch.rand(20_000, 1, generator=generator) < p[:, 0]
    valid = torch.ones_like(happened)
    honest = describe_termination(p, happened, valid)
    exaggerated = describe_termination((p > 0.5).float(), happened, valid)
    assert honest["ece"] < 0.02
    assert honest["brier"] == pytest.approx(1 / 6, rel=0.03)
    assert honest["auc"] == pytest.approx(5 / 6, rel=0.02)
    assert exaggerated["ece"] == pytest.approx(0.25, rel=0.05)
    assert exaggerated["bins"][9]["predicted"] == 1.0, "a probability of 1 belongs to the last bin"


def test_samples_are_averaged_before_they_are_judged() -> None:
    """Ten samples that disagree make one forecast of 0.5, neither right nor wrong."""
    probability = torch.tensor([0.0, 1.0]).repeat(5)[None, :, None]
    one = torch.ones(1, 1, dtype=torch.bool)
    assert describe_termination(probability, one, one)["brier"] == 0.25


def test_one_kind_of_step_gives_no_area_but_everything_else() -> None:
    found = describe([0.0, 0.25], [0, 0])
    assert found["auc"] is None
    assert found["brier"] == pytest.approx(0.03125)
    assert (found["positives"], found["steps"], found["base_rate"]) == (0, 2, 0.0)
    assert found == json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        describe([0.5, wrong], [0, 1])


def test_nothing_to_compare_is_refused() -> None:
    never = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="no step is valid"):
        describe_termination(torch.zeros(2, 1, 3), never, never)
