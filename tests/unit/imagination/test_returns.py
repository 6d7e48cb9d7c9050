"""Survival weights by hand and by counting."""

import torch

from imagination.returns import survival_weights


def test_survival_by_hand() -> None:
    continuation = torch.tensor([[0.5, 0.0, 1.0, 1.0], [1.0, 1.0, 0.25, 0.5]])
    assert survival_weights(continuation).tolist() == [[1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0, 0.25]]


def test_survival_is_the_share_of_sampled_episodes_still_alive() -> None:
    generator = torch.Generator().manual_seed(0)
    continuation = torch.rand(1, 6, generator=generator)
    goes_on = torch.rand(200_000, 6, generator=generator) < continuation
    alive = torch.ones(200_000, dtype=torch.bool)
    shares: list[float] = []
    for t in range(6):
        shares.append(alive.float().mean().item())
        alive &= goes_on[:, t]
    torch.testing.assert_close(survival_weights(continuation)[0], torch.tensor(shares), atol=5e-3, rtol=0)
