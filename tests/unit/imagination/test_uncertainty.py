"""How unsure a model is, what of it is too much, and what a penalty for it does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from imagination.uncertainty import UncertaintyGauge, known_steps
from tests.contracts.sound_world_model import SoundModel
from tests.support.doubtful_model import BATCH, SPEC, behaviour, config, context, doubtful, learn, roll
from worldmodel.config import ConfigError
from worldmodel.types import Prediction


class SaysItDoesNot(SoundModel):
    reports_uncertainty = False


def test_a_penalty_lowers_the_reward_and_changes_nothing_else() -> None:
    plain, lowered = roll(doubtful(), None), roll(doubtful(), config("penalise"))
    torch.testing.assert_close(lowered.reward, plain.reward - 0.5 * lowered.uncertainty)
    torch.testing.assert_close(lowered.penalty, 0.5 * lowered.uncertainty)
    assert torch.equal(plain.actor_view, lowered.actor_view)
    assert torch.equal(plain.action, lowered.action)
    assert lowered.known is None


def test_without_an_action_nothing_is_measured() -> None:
    plain, off = roll(doubtful(), None), roll(doubtful(), config("none"))
    assert off.uncertainty is None
    assert torch.equal(plain.reward, off.reward)


@pytest.mark.parametrize("silent", [SoundModel, SaysItDoesNot])
def test_a_model_that_reports_nothing_is_refused_before_anything_is_imagined(silent: type[SoundModel]) -> None:
    torch.manual_seed(0)
    plain = dataclasses.replace(behaviour(), uncertainty=config("truncate"))
    with pytest.raises(ConfigError, match=f"{silent.__name__} does not report how unsure it is; use .*signal=spread"):
        plain.build(SPEC, silent(SPEC))
    plain.build(SPEC, doubtful())
    dataclasses.replace(plain, uncertainty=config("truncate", "spread")).build(SPEC, silent(SPEC))


class KnownSpread(SoundModel):
    """The next state is the present one plus noise of standard deviation `scale` times the first entry's magnitude."""

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        now = state.states[:, 1]
        noise = torch.randn(now.shape, generator=generator) * now[:, :1].abs()
        return following, dataclasses.replace(prediction, state=now + noise)


def test_the_spread_of_draws_is_the_standard_deviation_in_units_of_the_start_states() -> None:
    torch.manual_seed(0)
    model, g = KnownSpread(SPEC), torch.Generator().manual_seed(3)
    start = context()
    gauge = UncertaintyGauge(config("truncate", "spread", num_draws=4000), start)
    state = model.start(start, generator=g)
    action = torch.zeros(BATCH, 2, 2)
    _, prediction = model.step(state, action, generator=g)

    measured = gauge.measure(model, state, action, prediction, g)

    last = start.state[:, -1]
    expected = last[:, 0].abs() * (1 / last.std(dim=0, correction=0)).square().mean().sqrt()
    torch.testing.assert_close(measured, expected, rtol=0.05, atol=0.0)


class Jittery(SoundModel):
    """The next state is the present one plus noise of standard deviation 0.2, in the last entry `last`."""

    last = 0.0

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        now, scale = state.states[:, 1], torch.tensor([0.2, 0.2, 0.2, self.last])
        noise = scale * torch.randn(now.shape, generator=generator)
        return following, dataclasses.replace(prediction, state=now + noise)


def test_a_nearly_constant_entry_does_not_drown_the_others() -> None:
    """As a contact force that rarely acts: models floor its unit, so what they draw of it is far wider than it is."""
    start, model = context(), Jittery(SPEC)
    start.state[:, -1, 3] = 2e-5 * torch.randn(BATCH, generator=torch.Generator().manual_seed(4))
    gauge, action = UncertaintyGauge(config("truncate", "spread", num_draws=400), start), torch.zeros(BATCH, 2, 2)
    medians = []
    for model.last in (0.0, 1e-3):
        g = torch.Generator().manual_seed(3)
        state = model.start(start, generator=g)
        _, prediction = model.step(state, action, generator=g)
        medians.append(float(gauge.measure(model, state, action, prediction, g).median()))
    assert medians[0] > 0.05
    assert medians[1] == pytest.approx(medians[0], rel=0.3)


def test_a_penalty_is_reported_beside_the_model_s_own_reward() -> None:
    model = doubtful()
    plain, lowered = (learn(model, roll(model, how))[1] for how in (None, config("penalise")))
    torch.testing.assert_close(lowered["imagination/reward_mean"], plain["imagination/reward_mean"])
    torch.testing.assert_close(lowered["imagination/penalty_mean"], 0.5 * lowered["imagination/uncertainty_mean"])
    assert lowered["imagination/return_mean"] < plain["imagination/return_mean"]


def test_without_any_doubt_nothing_is_cut() -> None:
    assert known_steps(torch.zeros(3, 2), 2.0).all()


def test_first_steps_without_doubt_have_no_say_in_what_is_much() -> None:
    """Discrete latents in a deterministic world: most first steps have no spread at all."""
    uncertainty = torch.tensor([[0.0, 0.1], [0.0, 2.0], [0.0, 9.0], [0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [1.0, 7.0]])
    known = known_steps(uncertainty, 2.0)  # up to 2: twice the median of 1, 1 and 3
    assert known.sum(dim=1).tolist() == [2, 2, 1, 2, 2, 0, 1]
    later = torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    assert known_steps(later, 2.0).all(), "no first step is in doubt, so nothing is cut"


def test_what_is_not_finite_is_too_uncertain_unless_nothing_else_is_there() -> None:
    nan, inf = torch.nan, torch.inf
    known = known_steps(torch.tensor([[1.0, nan, 1.0], [nan, 1.0, 1.0], [1.0, 1.0, inf], [0.0, 1.0, 1.0]]), 2.0)
    assert known.sum(dim=1).tolist() == [1, 0, 2, 3]
    assert known_steps(torch.tensor([[0.0, inf], [0.0, 1.0]]), 2.0).tolist() == [[True, False], [True, True]]
    assert known_steps(torch.tensor([[nan, nan], [inf, 1.0]]), 2.0).all(), "a broken model is not for a cut to hide"


@pytest.mark.parametrize(("name", "value"), [("num_draws", 1), ("threshold", 0.0), ("weight", -1.0)])
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    values: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"UncertaintyConfig.{name}"):
        config("truncate", **values)
