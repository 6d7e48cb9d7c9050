"""The fitted part: its filter against a naive loop, its loss against a loop over rows, steps and agents."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.distributions import kl_divergence as reference_kl
from torch.nn import functional

from tests.support.rssm_models import UNEQUAL, lively_rssm
from worldmodel.contract.random_data import random_segment
from worldmodel.rssm.dynamics import Dynamics
from worldmodel.types import Segment

T = 5
REAL = ((0, 5), (2, 5), (0, 3), (1, 4))
"""The valid transitions of each row: whole, at an episode's start, at its end, and an episode of three steps."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_segment() -> Segment:
    first, last = (torch.tensor(column)[:, None] for column in zip(*REAL, strict=True))
    steps = torch.arange(T)
    valid = (steps >= first) & (steps < last)
    segment = random_segment(UNEQUAL, len(REAL), T, seeded(1), valid)
    return dataclasses.replace(segment, terminated=(steps == last - 1) & (last < T))


def cut(segment: Segment, row: int) -> Segment:
    """The real part of one row, as a batch of its own."""
    start, stop = REAL[row]
    return segment[row : row + 1].steps(start, stop)


def test_the_filter_forgets_where_there_is_no_past() -> None:
    """A row in its padding ends where the same row cut out ends: drawn without noise, as the noise lies elsewhere."""
    dynamics, segment = lively_rssm(sharp=True).dynamics, draw_segment()
    filtered = dynamics.filter(segment.obs, segment.action, segment.valid, seeded())

    for row, (start, stop) in enumerate(REAL):
        alone = cut(segment, row)
        expected = dynamics.filter(alone.obs, alone.action, alone.valid, seeded(9))
        torch.testing.assert_close(filtered.deter[row, start : stop + 1], expected.deter[0])
        assert torch.equal(filtered.latent[row, start : stop + 1], expected.latent[0])


def test_the_filter_is_a_naive_loop_over_single_rows() -> None:
    dynamics, segment = lively_rssm().dynamics, draw_segment()
    cell, agents = dynamics.cell, UNEQUAL.num_agents
    filtered = dynamics.filter(segment.obs, segment.action, segment.valid, seeded(3))
    uniform = torch.rand(T + 1, len(REAL), agents, cell.config.groups, generator=seeded(3))

    for row in range(len(REAL)):
        deter, latent = torch.zeros(1, agents, 16), torch.zeros(1, agents, 16)
        for t in range(T + 1):
            action = segment.action[row : row + 1, t - 1] if t > 0 else torch.zeros(1, agents, 3)
            if t == 0 or not segment.valid[row, t - 1]:
                deter, latent, action = torch.zeros_like(deter), torch.zeros_like(latent), torch.zeros_like(action)
            deter = cell.transition(deter, latent, action)
            logits = cell.posterior(deter, dynamics.evidence(segment.obs[row : row + 1, t]))
            latent = cell.draw(logits, uniform[t, row : row + 1])
            torch.testing.assert_close(filtered.deter[row, t], deter[0])
            torch.testing.assert_close(filtered.latent[row, t], latent[0])
            torch.testing.assert_close(filtered.log_posterior[row, t], cell.log_probs(logits)[0])


def naive_losses(dynamics: Dynamics, segment: Segment, seed: int) -> dict[str, Tensor]:
    """Every loss, number by number, from the filtered latents."""
    units, heads = dynamics._units[0], dynamics.heads
    filtered = dynamics.filter(segment.obs, segment.action, segment.valid, seeded(seed))
    obs, state = units.layout.normalize(segment.obs), units.state.normalize(segment.state)
    terms: dict[str, list[Tensor]] = {name: [] for name in ("obs", "state", "kl", "reward", "continuation", "action")}
    for row, (start, stop) in enumerate(REAL):
        for t in range(start, stop + 1):
            deter, latent = filtered.deter[row, t], filtered.latent[row, t]
            features = torch.cat([deter, latent], dim=1)
            decoded, hidden = heads.decode_obs(features)
            for i, size in enumerate(UNEQUAL.obs_sizes):
                own = functional.smooth_l1_loss(decoded[i, :size], obs[row, t, i, :size], reduction="sum")
                terms["obs"].append(own)
                prior = Categorical(logits=dynamics.cell.log_probs(dynamics.cell.prior(deter[i])))
                terms["kl"].append(reference_kl(Categorical(logits=filtered.log_posterior[row, t, i]), prior).sum())
            terms["state"].append(
                functional.smooth_l1_loss(heads.state(features.flatten()), state[row, t], reduction="sum")
            )
            if t == start:
                continue
            before = filtered.latent[row, t - 1] if dynamics.config.outcome_from == "transition" else latent
            joint = torch.cat([deter, before], dim=1).flatten()
            reward = units.normalize_reward(segment.reward[row, t - 1])
            terms["reward"].append(functional.smooth_l1_loss(heads.reward(joint)[0], reward))
            goes_on = heads.continuation(joint)[0].sigmoid()
            terms["continuation"].append(-(1 - goes_on if segment.terminated[row, t - 1] else goes_on).log())
            assert heads.action is not None
            for i, size in enumerate(UNEQUAL.action_sizes):
                error = heads.action(hidden[i])[:size] - segment.action[row, t - 1, i, :size]
                terms["action"].append(0.5 * error.square().sum())
    return {name: torch.stack(values).mean() for name, values in terms.items()}


@pytest.mark.parametrize("outcome_from", ["transition", "successor"])
def test_the_loss_is_a_naive_loop_over_what_is_real(outcome_from: str) -> None:
    dynamics, segment = lively_rssm(UNEQUAL, f"dynamics.outcome_from={outcome_from}").dynamics, draw_segment()
    weights = dynamics.config.loss

    output, expected = dynamics(segment, seeded(4)), naive_losses(dynamics, segment, 4)

    for name, value in expected.items():
        torch.testing.assert_close(output.metrics["kl" if name == "kl" else f"{name}_loss"], value.detach())
    total = weights.kl_weight * expected.pop("kl")
    torch.testing.assert_close(output.loss, total + torch.stack(list(expected.values())).sum())


def test_what_lies_in_the_padding_changes_neither_loss_nor_gradient() -> None:
    dynamics, segment = lively_rssm().dynamics, draw_segment()
    unreal = ~segment.state_valid()
    rubbish = dataclasses.replace(
        segment,
        obs=segment.obs + 9 * unreal[:, :, None, None],
        state=segment.state + 9 * unreal[:, :, None],
        action=segment.action + ~segment.valid[:, :, None, None] * 0.7,
        reward=segment.reward + 9 * ~segment.valid,
    )

    results: list[tuple[Tensor, list[Tensor]]] = []
    for given in (segment, rubbish):
        loss = dynamics(given, seeded(5)).loss
        results.append((loss.detach(), list(torch.autograd.grad(loss, list(dynamics.parameters())))))

    (loss, gradient), (other_loss, other_gradient) = results
    torch.testing.assert_close(loss, other_loss)
    torch.testing.assert_close(gradient, other_gradient)


@pytest.mark.parametrize("shapes", [True, False])
def test_the_state_decoder_trains_the_latents_only_where_it_is_told_to(shapes: bool) -> None:
    segment = draw_segment()

    def gradient(weight: float) -> Tensor:
        words = (f"dynamics.loss.state_shapes_latents={shapes}", f"dynamics.loss.state_weight={weight}")
        dynamics = lively_rssm(UNEQUAL, *words).dynamics
        return torch.autograd.grad(dynamics(segment, seeded(6)).loss, dynamics.cell.token.weight)[0]

    assert torch.allclose(gradient(0.0), gradient(1.0)) is not shapes


def test_dropout_is_of_training_alone_and_follows_the_generator() -> None:
    dynamics, segment = lively_rssm(UNEQUAL, "dynamics.cell.dropout=0.5").dynamics, draw_segment()
    still = dynamics(segment, seeded(7)).loss
    dynamics.train(True)
    before = torch.get_rng_state()

    assert torch.equal(dynamics(segment, seeded(7)).loss, dynamics(segment, seeded(7)).loss)
    assert not torch.equal(dynamics(segment, seeded(7)).loss, still)
    assert torch.equal(before, torch.get_rng_state())
