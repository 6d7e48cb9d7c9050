"""The world model: filtering in one go and step by step, who hears whom, and units of what is predicted."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.support.rssm_models import UNEQUAL, lively_rssm, rssm_config
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_action, random_segment, random_transition
from worldmodel.types import Segment, Transition

BATCH = 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_starting_from_a_context_is_observing_it_step_by_step() -> None:
    """Without noise, as both draw theirs in another order."""
    model = lively_rssm(sharp=True)
    k = model.context_length
    context = random_segment(UNEQUAL, BATCH, k, seeded(1))
    first = Segment.from_first(context.obs[:, 0], context.state[:, 0], UNEQUAL.action_dim, k)

    walked = model.start(first, generator=seeded(2))
    for t in range(k):
        is_first = torch.zeros(BATCH, dtype=torch.bool)
        seen = Transition(context.action[:, t], context.obs[:, t + 1], None, is_first)
        walked = model.observe(walked, seen, generator=seeded(3))

    at_once = model.start(context, generator=seeded(4))
    for (name, one), (_, other) in zip(at_once.tensors(), walked.tensors(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_observing_a_first_step_is_starting_there() -> None:
    model = lively_rssm(sharp=True)
    fresh = random_transition(UNEQUAL, BATCH, seeded(5), torch.ones(BATCH, dtype=torch.bool))
    assert fresh.state is not None
    begun = Segment.from_first(fresh.obs, fresh.state, UNEQUAL.action_dim, model.context_length)
    before = model.start(random_segment(UNEQUAL, BATCH, model.context_length, seeded(6)), generator=seeded(7))

    observed, started = model.observe(before, fresh, generator=seeded(8)), model.start(begun, generator=seeded(9))

    for (name, one), (_, other) in zip(observed.tensors(), started.tensors(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


@pytest.mark.parametrize("communication", [True, False])
def test_imagined_agents_hear_what_others_do_only_with_communication(communication: bool) -> None:
    model = lively_rssm(UNEQUAL, f"communication={communication}")
    state = model.start(random_segment(UNEQUAL, BATCH, model.context_length, seeded(1)), generator=seeded(2))
    action = random_action(UNEQUAL, BATCH, seeded(3))
    changed = action.clone()
    changed[:, 1] *= -1

    (one, _), (other, _) = (model.step(state, a, generator=seeded(4)) for a in (action, changed))

    assert model.decentralized is not communication
    assert not torch.equal(one.deter[:, 1], other.deter[:, 1])
    assert torch.equal(one.deter[:, [0, 2]], other.deter[:, [0, 2]]) is not communication


def test_the_critic_sees_all_actors_and_the_decoded_state() -> None:
    model = lively_rssm()
    state = model.start(random_segment(UNEQUAL, BATCH, model.context_length, seeded(1)), generator=seeded(2))
    following, prediction = model.step(state, random_action(UNEQUAL, BATCH, seeded(3)), generator=seeded(4))

    view = model.view(following)

    features, decoded = view.critic.split([3 * model.actor_dim, UNEQUAL.state_dim], dim=1)
    assert torch.equal(features, view.actor.flatten(1))
    assert view.state is not None
    assert prediction.state is not None
    assert torch.equal(view.state, prediction.state)
    torch.testing.assert_close(model.units.state.denormalize(decoded), prediction.state)


@torch.no_grad()
def test_heads_that_say_nothing_predict_the_means_of_the_data() -> None:
    model = lively_rssm()
    for head in (model.dynamics.heads.reward, model.dynamics.heads.state, model.dynamics.heads.continuation):
        for parameter in head.parameters():
            parameter.zero_()
    state = model.start(random_segment(UNEQUAL, BATCH, model.context_length, seeded(1)), generator=seeded(2))

    _, prediction = model.step(state, random_action(UNEQUAL, BATCH, seeded(3)), generator=seeded(4))

    assert prediction.state is not None
    torch.testing.assert_close(prediction.state, model.units.state.mean.float().expand(BATCH, -1))
    torch.testing.assert_close(prediction.reward, model.units.reward.mean.float().expand(BATCH))
    torch.testing.assert_close(prediction.continuation, torch.full((BATCH,), 0.5))


def test_a_context_of_another_length_is_refused() -> None:
    model = lively_rssm()
    with pytest.raises(ValueError, match="context.action"):
        model.start(random_segment(UNEQUAL, BATCH, model.context_length + 1, seeded(1)), generator=seeded(2))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("context_length=-1", "context_length"),
        ("dynamics.segment_length=0", "segment_length"),
        ("dynamics.cell.attention_heads=3", "a divisor of hidden_dim = 16"),
        ("dynamics.cell.classes=1", "classes"),
        ("dynamics.cell.uniform_mix=1.0", "uniform_mix"),
        ("dynamics.heads.encoder_layers=0", "encoder_layers"),
        ("dynamics.loss.kl_balance=1.5", "kl_balance"),
        ("dynamics.loss.kl_weight=-1", "kl_weight"),
    ],
)
def test_what_cannot_be_built_is_refused(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        rssm_config(override)
    assert isinstance(caught.value, ConfigError) or isinstance(caught.value.__cause__, ConfigError)


def test_the_paper_preset_is_the_plain_file() -> None:
    paper = rssm_config(preset="paper")
    assert (paper.dynamics.cell.groups, paper.dynamics.cell.classes) == (32, 32)
    assert paper.dynamics.loss.kl_weight == 1 / paper.dynamics.cell.groups, "the code takes the mean over groups"
    assert dataclasses.replace(paper, communication=False).dynamics == paper.dynamics
