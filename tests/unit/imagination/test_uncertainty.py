"""Where a model is unsure rollouts are cut or penalised, and a cut rollout is worth what its known steps are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from imagination.mappo import BehaviourConfig
from imagination.returns import lambda_returns
from imagination.rollout import imagine
from imagination.uncertainty import UncertaintyConfig, UncertaintyGauge, known_steps
from tests.contracts.broken_world_models import SoundModel
from tests.support.dima_models import compose_group
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_segment
from worldmodel.types import EnvSpec, Prediction, Segment

SPEC = EnvSpec("pair", 2, 4, obs_sizes=(3, 3), action_sizes=(2, 2), episode_steps=20)
HORIZON, BATCH = 6, 40


class Doubtful(SoundModel):
    """Reports the magnitude of the state it steps from."""

    reports_uncertainty = True

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        return following, dataclasses.replace(prediction, uncertainty=state.states[:, 1].norm(dim=1))


def config(action: str, signal: str = "model", **values: Any) -> UncertaintyConfig:
    numbers: dict[str, Any] = {"num_draws": 4, "threshold": 1.2, "weight": 0.5, **values}
    return UncertaintyConfig(action, signal, **numbers)  # type: ignore[arg-type]


def behaviour() -> BehaviourConfig:
    return compose_group(["+policy=mappo"], "policy")


def roll(model: SoundModel, uncertainty: UncertaintyConfig | None) -> Any:
    torch.manual_seed(0)
    policy = behaviour().policy.build(SPEC, model.actor_dim)
    return imagine(model, policy, context(), HORIZON, torch.Generator().manual_seed(1), uncertainty)


def context() -> Segment:
    return random_segment(SPEC, BATCH, 2, torch.Generator().manual_seed(0))


def doubtful() -> Doubtful:
    torch.manual_seed(0)
    return Doubtful(SPEC)


def test_rollouts_are_cut_before_the_first_step_that_is_too_uncertain() -> None:
    rollout = roll(doubtful(), config("truncate"))
    assert rollout.uncertainty is not None
    bound = 1.2 * sorted(rollout.uncertainty[:, 0].tolist())[(BATCH - 1) // 2]
    expected = torch.ones(BATCH, HORIZON, dtype=torch.bool)
    for i in range(BATCH):
        for t in range(HORIZON):
            if any(float(value) > bound for value in rollout.uncertainty[i, : t + 1]):
                expected[i, t] = False
    assert torch.equal(rollout.known, expected)
    assert 0 < expected.float().mean() < 1


def test_a_penalty_lowers_the_reward_and_changes_nothing_else() -> None:
    plain, lowered = roll(doubtful(), None), roll(doubtful(), config("penalise"))
    torch.testing.assert_close(lowered.reward, plain.reward - 0.5 * lowered.uncertainty)
    assert torch.equal(plain.actor_view, lowered.actor_view)
    assert torch.equal(plain.action, lowered.action)
    assert lowered.known is None


def test_without_an_action_nothing_is_measured() -> None:
    plain, off = roll(doubtful(), None), roll(doubtful(), config("none"))
    assert off.uncertainty is None
    assert torch.equal(plain.reward, off.reward)


def test_a_model_that_reports_nothing_is_refused_before_anything_is_imagined() -> None:
    torch.manual_seed(0)
    plain = dataclasses.replace(behaviour(), uncertainty=config("truncate"))
    with pytest.raises(ConfigError, match="SoundModel does not report how unsure it is; use .*signal=spread"):
        plain.build(SPEC, SoundModel(SPEC))
    plain.build(SPEC, doubtful())
    dataclasses.replace(plain, uncertainty=config("truncate", "spread")).build(SPEC, SoundModel(SPEC))


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


def test_a_return_over_known_steps_is_that_of_the_shorter_rollout() -> None:
    g = torch.Generator().manual_seed(0)
    reward, value = torch.randn(8, 5, generator=g), torch.randn(8, 6, generator=g)
    continuation = torch.rand(8, 5, generator=g)
    length = torch.tensor([5, 4, 3, 2, 1, 5, 2, 3])
    known = torch.arange(5) < length[:, None]
    cut = lambda_returns(reward, continuation, value[:, 1:], discount=0.9, lambda_=0.8, known=known)
    for i, steps in enumerate(length.tolist()):
        row = slice(i, i + 1)
        whole = lambda_returns(
            reward[row, :steps], continuation[row, :steps], value[row, 1 : steps + 1], discount=0.9, lambda_=0.8
        )
        torch.testing.assert_close(cut[row, :steps], whole)


def test_what_lies_beyond_a_cut_teaches_nothing() -> None:
    model = doubtful()
    cut = roll(model, config("truncate"))
    beyond = ~cut.known
    spoilt = dataclasses.replace(
        cut,
        reward=torch.where(beyond, 1e3, cut.reward),
        continuation=torch.where(beyond, 0.5, cut.continuation),
        log_prob=torch.where(beyond[..., None], -1.0, cut.log_prob),
    )
    results = []
    for rollout in (cut, spoilt):
        torch.manual_seed(0)
        mappo = behaviour().build(SPEC, model)
        metrics = mappo.update(rollout, torch.Generator().manual_seed(0))
        results.append((dict(mappo.policy.state_dict()), dict(mappo.critic.state_dict()), metrics))
    for one, other in zip(results[0][:2], results[1][:2], strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], msg=name)
    assert float(results[0][2]["imagination/known_share"]) == pytest.approx(float(cut.known.float().mean()))


def test_nothing_known_leaves_the_update_finite() -> None:
    model = doubtful()
    cut = roll(model, config("truncate"))
    nothing = dataclasses.replace(cut, known=torch.zeros_like(cut.known))
    metrics = behaviour().build(SPEC, model).update(nothing, torch.Generator().manual_seed(0))
    assert all(bool(torch.isfinite(value).all()) for value in metrics.values())


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
