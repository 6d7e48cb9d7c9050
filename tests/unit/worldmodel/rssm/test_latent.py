"""Discrete latents against torch.distributions, naive loops and exact frequencies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.distributions import kl_divergence as reference_kl

from worldmodel.rssm.latent import balanced_kl, kl_divergence, log_probabilities, sample_one_hot


def draw_logits(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_equals_torch_distributions_summed_over_groups() -> None:
    q, p = draw_logits(0, 6, 2, 3, 5), draw_logits(1, 6, 2, 3, 5)

    expected = reference_kl(Categorical(logits=q), Categorical(logits=p)).sum(dim=-1)

    torch.testing.assert_close(kl_divergence(q.log_softmax(-1), p.log_softmax(-1)), expected)


@pytest.mark.parametrize("mix", [0.0, 0.01, 0.5])
def test_log_probabilities_are_those_of_the_mixture(mix: float) -> None:
    logits = draw_logits(0, 4, 3, 5)

    torch.testing.assert_close(
        log_probabilities(logits, mix).exp(), (1 - mix) * logits.softmax(dim=-1) + mix / logits.shape[-1]
    )


def test_log_probabilities_of_extreme_logits_are_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0]]])
    for mix in (0.0, 0.01):
        log_probs = log_probabilities(logits, mix)
        assert torch.isfinite(log_probs).all()
        assert torch.isfinite(kl_divergence(log_probs, log_probabilities(-logits, mix))).all()


@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_a_draw_is_the_inverse_of_the_distribution_function(mix: float) -> None:
    logits = draw_logits(2, 20, 3, 5)
    uniform = torch.rand(20, 3, generator=torch.Generator().manual_seed(3))

    drawn = sample_one_hot(logits, mix, uniform)

    assert set(drawn.flatten().tolist()) == {0.0, 1.0}, "straight-through must not leave rounding errors"
    probs = log_probabilities(logits, mix).exp()
    for row in range(20):
        for group in range(3):
            total, chosen = 0.0, 0
            while (total := total + float(probs[row, group, chosen])) <= float(uniform[row, group]):
                chosen += 1
            assert drawn[row, group].argmax() == chosen
            assert drawn[row, group].sum() == 1


def test_the_edges_of_the_unit_interval_draw_possible_classes() -> None:
    logits = torch.tensor([[[-1e9, 0.0, 0.0]]]).expand(2, 1, 3)
    uniform = torch.tensor([[0.0], [1 - 2**-24]])

    assert sample_one_hot(logits, 0.0, uniform).argmax(dim=-1).flatten().tolist() == [1, 2]


def test_the_gradient_is_that_of_the_probabilities() -> None:
    logits, weight = draw_logits(4, 7, 3, 5).requires_grad_(), draw_logits(5, 7, 3, 5)
    uniform = torch.rand(7, 3, generator=torch.Generator().manual_seed(6))

    (through_draw,) = torch.autograd.grad((sample_one_hot(logits, 0.1, uniform) * weight).sum(), logits)
    (through_probs,) = torch.autograd.grad((0.9 * logits.softmax(dim=-1) * weight).sum(), logits)

    torch.testing.assert_close(through_draw, through_probs)


def test_balanced_kl_is_the_kl_and_shares_out_its_gradient() -> None:
    q, p = draw_logits(7, 6, 3, 5).requires_grad_(), draw_logits(8, 6, 3, 5).requires_grad_()
    plain = kl_divergence(q.log_softmax(-1), p.log_softmax(-1))
    balanced = balanced_kl(q.log_softmax(-1), p.log_softmax(-1), balance=0.8, free_nats=0.0)

    plain_q, plain_p = torch.autograd.grad(plain.sum(), (q, p))
    balanced_q, balanced_p = torch.autograd.grad(balanced.sum(), (q, p))

    torch.testing.assert_close(balanced, plain)
    torch.testing.assert_close(balanced_q, 0.2 * plain_q)
    torch.testing.assert_close(balanced_p, 0.8 * plain_p)


def test_states_within_their_free_nats_are_left_alone() -> None:
    q, p = draw_logits(9, 6, 3, 5), draw_logits(10, 6, 3, 5)
    q = torch.cat([q[:3], p[3:] + 1e-3 * q[3:]]).requires_grad_()
    free = 0.1
    assert (kl_divergence(q.log_softmax(-1), p.log_softmax(-1)) > free).tolist() == [True] * 3 + [False] * 3

    value = balanced_kl(q.log_softmax(-1), p.log_softmax(-1), balance=0.8, free_nats=free)
    (gradient,) = torch.autograd.grad(value.sum(), q)

    torch.testing.assert_close(value[3:], torch.full((3,), free))
    assert gradient[:3].any()
    assert not gradient[3:].any()
