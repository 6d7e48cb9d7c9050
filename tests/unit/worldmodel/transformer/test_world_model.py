"""The transformer world model whole: what agents see, in imagination and in the real world."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.support.transformer_models import UNEQUAL, lively_transformer
from worldmodel.contract.random_data import random_action, random_segment, random_trajectory, random_transition
from worldmodel.types import Segment

GENERATOR = torch.Generator().manual_seed(0)


def context(batch: int = 6) -> Segment:
    return random_segment(UNEQUAL, batch, 0, torch.Generator().manual_seed(2))


def test_actors_see_reconstructions_in_the_real_world_as_in_imagination() -> None:
    model = lively_transformer()
    transition = random_transition(UNEQUAL, 6, torch.Generator().manual_seed(3), torch.zeros(6, dtype=torch.bool))
    state = model.observe(model.start(context(), generator=GENERATOR), transition, generator=GENERATOR)
    z = model.tokenizer.decode(model.tokenizer.encode(model.layout.normalized_rows(transition.obs)))
    assert torch.equal(model.view(state).actor, model.layout.denormalize(model.layout.spread_rows(z)))
    assert not torch.allclose(model.view(state).actor, transition.obs, atol=1e-3)
    imagined, prediction = model.step(state, random_action(UNEQUAL, 6, GENERATOR), generator=GENERATOR)
    assert torch.equal(model.view(imagined).actor, prediction.obs)
    z = model.tokenizer.decode(imagined.tokens)
    assert torch.equal(model.view(imagined).actor, model.layout.denormalize(model.layout.spread_rows(z)))


def test_a_real_step_ends_what_was_imagined() -> None:
    model = lively_transformer()
    transition = random_transition(UNEQUAL, 6, torch.Generator().manual_seed(3), torch.zeros(6, dtype=torch.bool))
    imagined, _ = model.step(
        model.start(context(), generator=GENERATOR), random_action(UNEQUAL, 6, GENERATOR), generator=GENERATOR
    )
    assert imagined.cache is not None
    assert model.observe(imagined, transition, generator=GENERATOR).cache is None


def test_the_critic_sees_all_real_entries_and_actors_normalised_ones_if_asked() -> None:
    model = lively_transformer("normalize_obs=true")
    state = model.start(context(), generator=GENERATOR)
    view = model.view(state)
    assert view.critic.shape == (6, sum(UNEQUAL.obs_sizes))
    assert torch.equal(
        view.critic, torch.cat([state.z[:, i, :size] for i, size in enumerate(UNEQUAL.obs_sizes)], dim=1)
    )
    assert torch.equal(view.actor[..., :4], state.z)
    assert torch.equal(view.actor[..., 4:], torch.eye(3).expand(6, 3, 3))


def test_a_context_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="context.obs has shape"):
        lively_transformer().start(random_segment(UNEQUAL, 2, 1, GENERATOR), generator=GENERATOR)


def test_statistics_count_every_real_step_once() -> None:
    """An episode handed over in two stretches leaves the same statistics as the whole."""
    whole, halves = lively_transformer(), lively_transformer()
    trajectory = random_trajectory(UNEQUAL, 20, torch.Generator().manual_seed(5))
    whole.update_statistics(trajectory)
    first = trajectory.map(lambda tensor: tensor[: 9 if len(tensor) == 21 else 8])
    second = dataclasses.replace(trajectory.map(lambda tensor: tensor[8:]), is_start=False)
    halves.update_statistics(first)
    halves.update_statistics(second)
    for name, value in whole.state_dict().items():
        if "norm" in name:
            torch.testing.assert_close(halves.state_dict()[name], value)
