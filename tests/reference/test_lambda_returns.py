"""The lambda-return against its definition: a mixture of k-step returns, summed one term at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagination.returns import lambda_returns


def k_step_return(
    reward: list[float], continuation: list[float], next_value: list[float], t: int, k: int, discount: float
) -> float:
    """k rewards from step t on, then the value of the state reached."""
    total, weight = 0.0, 1.0
    for u in range(t, t + k):
        total += weight * reward[u]
        weight *= discount * continuation[u]
    return total + weight * next_value[t + k - 1]


def mixture(
    reward: list[float], continuation: list[float], next_value: list[float], discount: float, lambda_: float
) -> list[float]:
    """(1 - lambda) * sum_k lambda^(k-1) * k-step return; what is left of the weight goes to the longest."""
    horizon = len(reward)
    result: list[float] = []
    for t in range(horizon):
        longest = horizon - t
        parts = [k_step_return(reward, continuation, next_value, t, k, discount) for k in range(1, longest + 1)]
        weights = [(1 - lambda_) * lambda_ ** (k - 1) for k in range(1, longest)] + [lambda_ ** (longest - 1)]
        result.append(sum(w * g for w, g in zip(weights, parts, strict=True)))
    return result


@settings(max_examples=40, deadline=None)
@given(
    horizon=st.integers(1, 15),
    discount=st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    lambda_=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_mixture_of_k_step_returns(horizon: int, discount: float, lambda_: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward, next_value = torch.randn(2, 3, horizon, generator=generator, dtype=torch.float64)
    continuation = torch.rand(3, horizon, generator=generator, dtype=torch.float64)
    continuation[0, horizon // 2] = 0.0
    got = lambda_returns(reward, continuation, next_value, discount=discount, lambda_=lambda_)
    rows = zip(reward.tolist(), continuation.tolist(), next_value.tolist(), strict=True)
    expected = [mixture(r, c, v, discount, lambda_) for r, c, v in rows]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_by_hand() -> None:
    reward = torch.tensor([[1.0, 2.0]])
    value = torch.tensor([[10.0, 20.0]])
    got = lambda_returns(reward, torch.ones(1, 2), value, discount=0.5, lambda_=0.5)
    # G_1 = 2 + 0.5*20 = 12; G_0 = 1 + 0.5*(0.5*10 + 0.5*12) = 6.5
    assert got.tolist() == [[6.5, 12.0]]


@pytest.mark.parametrize("lambda_", [0.0, 0.95, 1.0])
def test_nothing_after_a_sure_end_counts(lambda_: float) -> None:
    reward, value = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    continuation = torch.ones(4, 6)
    continuation[:, 2] = 0.0
    first = lambda_returns(reward, continuation, value, discount=0.99, lambda_=lambda_)
    reward, value = reward.clone(), value.clone()
    reward[:, 3:] += 100.0
    value[:, 2:] += 100.0
    second = lambda_returns(reward, continuation, value, discount=0.99, lambda_=lambda_)
    assert torch.equal(first[:, :3], second[:, :3])
    assert torch.equal(first[:, 2], reward[:, 2])
