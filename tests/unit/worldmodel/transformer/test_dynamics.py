"""The token dynamics: what predicts what, what the loss counts, and that imagination repeats what training saw."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.transformer_models import UNEQUAL, lively_transformer, transformer_config
from worldmodel.contract.random_data import random_action, random_segment
from worldmodel.transformer.dynamics import TokenDynamics, valid_steps_first
from worldmodel.types import Segment

GENERATOR = torch.Generator()
WINDOW, AGENTS, PLACES = 4, 3, 3
VARIANTS = (
    (),
    ("dynamics.token_distribution=channels", "dynamics.token_embedding=code", "dynamics.action_embedding=bins"),
)


def dynamics_of(*overrides: str) -> TokenDynamics:
    return lively_transformer(*overrides).dynamics


def draw(batch: int = 5, steps: int = WINDOW) -> tuple[Tensor, Tensor]:
    """Tokens [B,T+1,3,3] and actions [B,T,3,3]."""
    g = torch.Generator().manual_seed(1)
    tokens = torch.randint(240, (batch, steps + 1, AGENTS, PLACES), generator=g)
    return tokens, random_action(UNEQUAL, batch * steps, g).unflatten(0, (batch, steps))


@torch.no_grad()
def test_each_token_is_predicted_at_the_place_before_it() -> None:
    """The sequence of one agent, written out, through the transformer as it is."""
    dynamics = dynamics_of()
    tokens, action = draw()
    hidden = dynamics.hidden(tokens, action)
    assert hidden.shape == (5, WINDOW, AGENTS, PLACES, 32)
    for agent in range(AGENTS):
        sequence, places = [], {}
        for t in range(WINDOW + 1):
            embedded = dynamics.embedding.tokens(tokens[:, t])
            for place in range(PLACES if t < WINDOW else PLACES - 1):
                sequence.append(embedded[:, agent, place])
                if t > 0 and place < PLACES - 1:
                    places[t - 1, place + 1] = len(sequence) - 1
            if t < WINDOW:
                acted = dynamics.embedding.actions(action[:, t])
                summary = dynamics.aggregation(torch.cat([embedded, acted[:, :, None]], dim=2))
                sequence += [acted[:, agent], summary[:, agent]]
                places[t, 0] = len(sequence) - 1
        out = dynamics.transformer(torch.stack(sequence, dim=1))
        assert len(places) == WINDOW * PLACES
        for (t, place), position in places.items():
            torch.testing.assert_close(hidden[:, t, agent, place], out[:, position], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_nothing_is_predicted_from_itself_or_from_what_comes_later() -> None:
    dynamics = dynamics_of()
    tokens, action = draw()
    before = dynamics.hidden(tokens, action)
    for t in range(WINDOW):
        for place in range(PLACES):
            changed = tokens.clone()
            changed[:, t + 1, 0, place] = (changed[:, t + 1, 0, place] + 1) % 240
            moved = (dynamics.hidden(changed, action) - before).abs().amax(dim=(0, -1))  # [T, N, L]
            assert not moved[:t].any()
            assert not moved[t, 1:].any(), "another agent's token of the same observation"
            assert not moved[t, 0, : place + 1].any()
            assert bool((moved[t, 0, place + 1 :] > 1e-4).all())
            assert bool((moved[t + 1 :] > 1e-5).all()), "through the summary all agents learn of it"


@torch.no_grad()
def test_others_are_known_through_the_summary_alone() -> None:
    dynamics = dynamics_of()
    for parameter in dynamics.aggregation.parameters():
        parameter.zero_()
    tokens, action = draw()
    before = dynamics.hidden(tokens, action)
    tokens[:, :, 1], action[:, :, 1] = tokens[:, :, 1].flip(0), -action[:, :, 1]
    after = dynamics.hidden(tokens, action)
    assert torch.equal(before[:, :, [0, 2]], after[:, :, [0, 2]])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


@pytest.mark.parametrize("overrides", VARIANTS, ids=["marie", "other"])
@pytest.mark.parametrize("mode", [False, True], ids=["evaluating", "training"])
@torch.no_grad()
def test_imagination_repeats_the_whole_forward_pass(overrides: tuple[str, ...], mode: bool) -> None:
    """Most probable tokens, so that they can be told from the outputs: twice the window, so with one new beginning."""
    dynamics = dynamics_of("dynamics.temperature=0", *overrides)
    tokens, action = draw(steps=2 * WINDOW)
    seen, cache, rewards, continuations = [tokens[:, 0]], None, [], []
    dynamics.train(mode)
    for t in range(2 * WINDOW):
        cache, following, reward, continuation = dynamics.step(cache, seen[-1], action[:, t], GENERATOR)
        seen.append(following)
        rewards.append(reward)
        continuations.append(continuation)
    dynamics.eval()
    path = torch.stack(seen, dim=1)
    for first in (0, WINDOW):
        steps = slice(first, first + WINDOW)
        hidden = dynamics.hidden(path[:, first : first + WINDOW + 1], action[:, steps])
        logits = dynamics.token_head.logits(hidden)
        assert torch.equal(dynamics.token_head.most_probable(logits), path[:, first + 1 : first + WINDOW + 1])
        reward = dynamics.reward_head(hidden[..., 0, :])[..., 0].mean(dim=-1)
        expected = dynamics._shared[2].denormalize(reward[..., None])[..., 0]
        torch.testing.assert_close(torch.stack(rewards[steps], dim=1), expected, atol=1e-4, rtol=1e-4)
        expected = dynamics.continuation_head(hidden[..., 0, :])[..., 0].sigmoid().mean(dim=-1)
        torch.testing.assert_close(torch.stack(continuations[steps], dim=1), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_of_a_rollout_may_be_picked_and_branched() -> None:
    dynamics = dynamics_of("dynamics.temperature=0")
    tokens, action = draw()
    cache, following, *_ = dynamics.step(None, tokens[:, 0], action[:, 0], GENERATOR)
    rows = torch.tensor([4, 1])
    expected = dynamics.step(cache, following, action[:, 1], GENERATOR)[2]
    for pick in (rows, slice(None, None, 2), slice(1, 3)):
        other = dynamics.step(cache[pick], following[pick], -action[pick, 1], GENERATOR)
        again = dynamics.step(cache[pick], following[pick], action[pick, 1], GENERATOR)
        torch.testing.assert_close(again[2], expected[pick], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(other[2], again[2], atol=1e-4)
    torch.testing.assert_close(dynamics.step(cache, following, action[:, 1], GENERATOR)[2], expected)


def padded(first: int, stop: int) -> Segment:
    """Rows whose steps first..stop-1 are valid; some of them end the episode."""
    valid = torch.zeros(6, WINDOW, dtype=torch.bool)
    valid[:, first:stop] = True
    segment = random_segment(UNEQUAL, 6, WINDOW, torch.Generator().manual_seed(7), valid)
    terminated = torch.zeros_like(valid)
    terminated[:3, stop - 1] = True
    return dataclasses.replace(segment, terminated=terminated)


@pytest.mark.parametrize(("first", "stop"), [(0, WINDOW), (1, 3), (2, WINDOW), (0, 1)])
@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(first: int, stop: int) -> None:
    dynamics, segment = dynamics_of(), padded(first, stop)
    whole, cut = dynamics(segment, GENERATOR), dynamics(segment.steps(first, stop), GENERATOR)
    torch.testing.assert_close(whole.loss, cut.loss, atol=1e-5, rtol=1e-5)
    for name, value in cut.metrics.items():
        torch.testing.assert_close(whole.metrics[name], value, atol=1e-5, rtol=1e-5)


def test_valid_steps_move_to_the_front_with_the_states_around_them() -> None:
    segment = padded(2, WINDOW)
    moved = valid_steps_first(segment)
    assert moved.valid.tolist() == [[True, True, False, False]] * 6
    assert torch.equal(moved.obs[:, :3], segment.obs[:, 2:])
    assert torch.equal(moved.action[:, :2], segment.action[:, 2:])
    assert torch.equal(moved.terminated.nonzero(), torch.tensor([[0, 1], [1, 1], [2, 1]]))


@torch.no_grad()
def test_the_loss_is_the_sum_of_its_three_means() -> None:
    dynamics, segment = dynamics_of(), padded(0, WINDOW)
    layout, tokenizer, reward_norm = dynamics._shared
    tokens = tokenizer.encode(layout.normalized_rows(segment.obs))
    hidden = dynamics.hidden(tokens, segment.action)
    likelihood, rewards, ends = [], [], []
    for row in range(6):
        for t in range(WINDOW):
            for agent in range(AGENTS):
                for place in range(PLACES):
                    logits = dynamics.token_head.network(hidden[row, t, agent, place])
                    likelihood.append(logits.log_softmax(0)[tokens[row, t + 1, agent, place]])
                summary = hidden[row, t, agent, 0]
                target = reward_norm.normalize(segment.reward[row, t, None])
                rewards.append(functional.smooth_l1_loss(dynamics.reward_head(summary), target))
                goes_on = dynamics.continuation_head(summary).sigmoid()
                ends.append(-(1 - goes_on if segment.terminated[row, t] else goes_on).log()[0])
    parts = [-torch.stack(likelihood).mean(), torch.stack(rewards).mean(), torch.stack(ends).mean()]
    output = dynamics(segment, GENERATOR)
    for name, expected in zip(("token_loss", "reward_loss", "termination_loss"), parts, strict=True):
        torch.testing.assert_close(output.metrics[name], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.loss, sum(parts), atol=1e-4, rtol=1e-4)


def test_no_gradient_reaches_the_tokenizer() -> None:
    model = lively_transformer()
    model.dynamics(padded(0, WINDOW), GENERATOR).loss.backward()
    assert all(parameter.grad is None for parameter in model.tokenizer.parameters())
    assert not {id(p) for p in model.tokenizer.parameters()} & {id(p) for p in model.dynamics.parameters()}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dynamics.num_heads=3", "a divisor of embed_dim = 32"),
        ("dynamics.temperature=-1", "at least 0"),
        ("dynamics.window=0", "at least 1"),
        ("dynamics.attention_dropout=1.0", "a probability"),
        ("dynamics.aggregation_layers=-1", "at least 0"),
    ],
)
def test_what_cannot_be_built_is_refused(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        transformer_config(override)
