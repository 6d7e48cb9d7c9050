"""Tokens are drawn and scored in proportion to their probabilities, digit by digit."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from worldmodel.transformer.token_head import TokenHead

SIZES = (3, 5, 2)
TOKENS = 30


def build(*sizes: int) -> TokenHead:
    torch.manual_seed(0)
    head = TokenHead(8, 2, sizes)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return head


def hidden(rows: int = 4) -> Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))


def probabilities(head: TokenHead, logits: Tensor) -> Tensor:
    """[V] of one row's logits [C,M], token by token from the definition."""
    sizes = head.sizes.tolist()
    result = torch.zeros(math.prod(sizes))
    for digits in itertools.product(*map(range, sizes)):
        token = sum(d * math.prod(sizes[:i]) for i, d in enumerate(digits))
        factors = [logits[i, : sizes[i]].exp()[d] / logits[i, : sizes[i]].exp().sum() for i, d in enumerate(digits)]
        result[token] = math.prod(map(float, factors))
    return result


@pytest.mark.parametrize("sizes", [SIZES, (TOKENS,)], ids=["channels", "joint"])
@torch.no_grad()
def test_the_loss_is_minus_the_logarithm_of_the_probability(sizes: tuple[int, ...]) -> None:
    head = build(*sizes)
    logits = head.logits(hidden())
    for row in logits:
        expected = probabilities(head, row)
        assert expected.sum() == pytest.approx(1.0, abs=1e-4)
        scored = head.loss(row.expand(TOKENS, *row.shape), torch.arange(TOKENS))
        torch.testing.assert_close(scored, -expected.log(), atol=1e-3, rtol=1e-4)
        assert head.most_probable(row) == expected.argmax()


@pytest.mark.parametrize("sizes", [SIZES, (TOKENS,)], ids=["channels", "joint"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@torch.no_grad()
def test_draws_are_as_frequent_as_probable(sizes: tuple[int, ...], temperature: float) -> None:
    head, draws = build(*sizes), 200_000
    logits = head.logits(hidden(1)).expand(draws, -1, -1)
    drawn = head.draw(logits, temperature, torch.Generator().manual_seed(0))
    expected = probabilities(head, logits[0] / temperature)
    torch.testing.assert_close(torch.bincount(drawn, minlength=TOKENS) / draws, expected, atol=5e-3, rtol=0)


def test_a_draw_is_where_the_cumulative_sum_passes_the_uniform_number() -> None:
    head = build(7)
    logits = torch.randn(6, 3, 1, 7, generator=torch.Generator().manual_seed(1))
    drawn = head.draw(logits, 1.0, torch.Generator().manual_seed(2))
    uniform = torch.rand(6, 3, 1, 1, generator=torch.Generator().manual_seed(2))
    for row, agent in itertools.product(range(6), range(3)):
        probability, total, number = logits[row, agent, 0].softmax(0), 0.0, 0
        while total + float(probability[number]) <= float(uniform[row, agent]):
            total, number = total + float(probability[number]), number + 1
        assert drawn[row, agent] == number


def test_what_is_impossible_is_never_drawn() -> None:
    head = build(4)
    logits = torch.tensor([-torch.inf, 0.0, 1.0, -torch.inf]).expand(50_000, 1, 4)
    assert head.draw(logits, 1.0, torch.Generator().manual_seed(0)).unique().tolist() == [1, 2]


def test_temperature_0_takes_the_most_probable_and_draws_nothing() -> None:
    head, generator = build(*SIZES), torch.Generator().manual_seed(3)
    before = generator.get_state()
    logits = head.logits(hidden())
    assert torch.equal(head.draw(logits, 0.0, generator), head.most_probable(logits))
    assert torch.equal(generator.get_state(), before)
