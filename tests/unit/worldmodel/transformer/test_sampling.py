"""Tokens are drawn in proportion to their probabilities, one uniform number each."""

from __future__ import annotations

import torch

from worldmodel.transformer.sampling import draw_token

LOGITS = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf])


def frequencies(temperature: float, draws: int = 200_000) -> torch.Tensor:
    drawn = draw_token(LOGITS.expand(draws, -1), temperature, torch.Generator().manual_seed(0))
    return torch.bincount(drawn, minlength=5) / draws


def test_frequencies_are_the_probabilities() -> None:
    for temperature in (1.0, 0.5, 3.0):
        expected = torch.exp(LOGITS / temperature) / torch.exp(LOGITS / temperature).sum()
        torch.testing.assert_close(frequencies(temperature), expected, atol=5e-3, rtol=0)
        assert frequencies(temperature)[4] == 0


def test_a_draw_is_where_the_cumulative_sum_passes_the_uniform_number() -> None:
    logits = torch.randn(6, 3, 7, generator=torch.Generator().manual_seed(1))
    drawn = draw_token(logits, 1.0, torch.Generator().manual_seed(2))
    uniform = torch.rand(6, 3, 1, generator=torch.Generator().manual_seed(2))
    for row in range(6):
        for agent in range(3):
            probability, total, number = logits[row, agent].softmax(0), 0.0, 0
            while total + float(probability[number]) <= float(uniform[row, agent]):
                total, number = total + float(probability[number]), number + 1
            assert drawn[row, agent] == number


def test_temperature_0_takes_the_most_probable_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert draw_token(LOGITS[None], 0.0, generator).tolist() == [3]
    assert torch.equal(generator.get_state(), before)
