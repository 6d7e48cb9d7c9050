"""Action gains against naive loops, and on models whose gains are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.toy.oracle import OracleModel, OracleState
from tests.support.dima_models import lively_dima
from tests.support.toy_systems import linear_config
from worldmodel.contract.random_data import random_action, random_segment
from worldmodel.evaluation.action_gain import describe_gain, model_changes
from worldmodel.evaluation.curves import Bootstrap
from worldmodel.evaluation.units import Units
from worldmodel.types import EnvSpec, Prediction, Segment

SYSTEM = linear_config(episode_steps=12).build().system
MOMENTS = 30


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_moments(spec: EnvSpec, context_length: int, batch: int = MOMENTS) -> tuple[Segment, Tensor]:
    """Contexts, and joint actions [B,1+N,N,A] of which variant 1+i differs from variant 0 in agent i's row."""
    context = random_segment(spec, batch, context_length, seeded(0))
    recorded, other = random_action(spec, batch, seeded(1)), random_action(spec, batch, seeded(2))
    variants = [recorded]
    for agent in range(spec.num_agents):
        variants.append(recorded.clone())
        variants[-1][:, agent] = other[:, agent]
    return context, torch.stack(variants, dim=1)


def true_changes(actions: Tensor) -> Tensor:
    """[B,N,S] of the linear system, from its law."""
    change = (actions[:, 1:] - actions[:, :1]).double().numpy()
    zero = np.zeros((*change.shape[:2], 4))
    return torch.from_numpy(SYSTEM.mixture(zero, change).mean[0])


class PartlyDeaf(OracleModel):
    """Hears each agent's action with a gain of its own, plus, when asked, with an error of its own."""

    def __init__(self, gains: tuple[float, ...], error: float = 0.0) -> None:
        super().__init__(SYSTEM)
        self.gains, self.error = torch.tensor(gains)[:, None], error

    def step(self, state: OracleState, action: Tensor, *, generator: torch.Generator) -> tuple[OracleState, Prediction]:
        noise = torch.randn(action.shape, generator=generator)
        return super().step(state, self.gains * action * (1 + self.error * noise), generator=generator)


class Stateless(OracleModel):
    """Keeps the global state to itself."""

    def step(self, state: OracleState, action: Tensor, *, generator: torch.Generator) -> tuple[OracleState, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        return following, dataclasses.replace(prediction, state=None)


class Broken(OracleModel):
    """Gives NaN when the last agent pushes with more than 0.9."""

    def step(self, state: OracleState, action: Tensor, *, generator: torch.Generator) -> tuple[OracleState, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        assert prediction.state is not None
        bad = (action[:, 2:] > 0.9).any(dim=(1, 2))[:, None]
        return following, dataclasses.replace(prediction, state=torch.where(bad, torch.nan, prediction.state))


def units(dim: int = 4) -> Units:
    return Units(std=torch.linspace(0.5, 2, dim).double(), live=torch.ones(dim, dtype=torch.bool))


def test_known_gains_are_found() -> None:
    context, actions = make_moments(SYSTEM.spec, 0)
    model = PartlyDeaf((1.0, 0.3, -0.5))
    changed = model_changes(model, context, actions, num_samples=3, generator=seeded(3))
    described = describe_gain(changed, true_changes(actions), units(), Bootstrap(MOMENTS))
    assert described["action_gain"] == pytest.approx([1.0, 0.3, -0.5], abs=1e-6)
    # A change that is g times the true one misses the share (1 - g)^2 of its energy.
    assert described["action_gain_r2"] == pytest.approx([1.0, 1 - 0.7**2, 1 - 1.5**2], abs=1e-6)
    for gain, (low, high) in zip((1.0, 0.3, -0.5), described["action_gain_ci95"], strict=True):
        assert low == pytest.approx(gain, abs=1e-5)
        assert high == pytest.approx(gain, abs=1e-5)


def test_a_gain_of_one_on_average_is_told_from_one_that_is_right_each_time() -> None:
    context, actions = make_moments(SYSTEM.spec, 0, batch=400)
    actions = 0.2 * actions  # so that no misheard action reaches the bounds, where it would be clipped
    changed = model_changes(
        PartlyDeaf((1.0, 1.0, 1.0), error=0.5), context, actions, num_samples=20, generator=seeded(3)
    )
    described = describe_gain(changed, true_changes(actions), units(), Bootstrap(400))
    for gain, (low, high), r2 in zip(*described.values(), strict=True):
        assert low < 1 < high
        assert gain == pytest.approx(1, abs=0.03)
        assert r2 == pytest.approx(1 - 0.5**2, abs=0.03)


@pytest.mark.parametrize("words", [("reveal=joint",), ("reveal=progressive", "order=random")])
def test_every_variant_meets_the_same_noise(words: tuple[str, ...]) -> None:
    """One variant and one sample at a time, each with a generator of its own, set to where `start` leaves it."""
    spec = SYSTEM.spec
    model = lively_dima(spec, *words)
    context, actions = make_moments(spec, model.context_length, batch=3)
    changed = model_changes(model, context, actions, num_samples=2, generator=seeded(3))
    repeated = context.map(lambda tensor: tensor.repeat_interleave(2, dim=0))
    reached = []
    with torch.no_grad():
        for variant in range(4):
            generator = seeded(3)
            carry = model.start(repeated, generator=generator)
            joint = actions[:, variant].repeat_interleave(2, dim=0)
            state = model.step(carry, joint, generator=generator)[1].state
            assert state is not None
            reached.append(state)
    for agent in range(3):
        assert torch.equal(changed[:, :, agent].flatten(0, 1), reached[1 + agent] - reached[0])
    assert changed.abs().max() > 0


def test_without_a_change_of_action_nothing_changes() -> None:
    model = lively_dima(SYSTEM.spec, "reveal=progressive", "order=random")
    context, actions = make_moments(SYSTEM.spec, model.context_length, batch=3)
    same = actions[:, :1].expand_as(actions)
    assert not model_changes(model, context, same, num_samples=4, generator=seeded(3)).any()


def test_moments_in_several_batches_are_told_apart() -> None:
    context, actions = make_moments(SYSTEM.spec, 0)
    changed = [
        model_changes(PartlyDeaf((1.0,) * 3), context, actions, num_samples=4, generator=seeded(3), batch_rows=rows)
        for rows in (4096, 28, 1)
    ]
    expected = true_changes(actions)[:, None].expand(-1, 4, -1, -1)
    for each in changed:
        torch.testing.assert_close(each.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_judged_in_evaluation_mode_and_left_as_it_was(training: bool) -> None:
    class Watched(OracleModel):
        def step(
            self, state: OracleState, action: Tensor, *, generator: torch.Generator
        ) -> tuple[OracleState, Prediction]:
            assert not self.training
            return super().step(state, action, generator=generator)

    model = Watched(SYSTEM)
    model.train(training)
    model_changes(model, *make_moments(SYSTEM.spec, 0), num_samples=1, generator=seeded(3))
    assert model.training == training


def test_a_model_without_a_global_state_has_no_gains() -> None:
    with pytest.raises(ValueError, match="Stateless predicts no global state: action gains compare changes of the"):
        model_changes(Stateless(SYSTEM), *make_moments(SYSTEM.spec, 0), num_samples=1, generator=seeded(3))


def test_a_prediction_that_is_not_finite_is_named() -> None:
    context, actions = make_moments(SYSTEM.spec, 0)
    actions[:, :, 2] = 0.0
    actions[7, 3, 2] = 0.95
    with pytest.raises(FloatingPointError, match=r"state\[0\] with the action of agent 2 is not finite at moment 7, s"):
        model_changes(Broken(SYSTEM), context, actions, num_samples=2, generator=seeded(3))


def test_contexts_and_actions_that_do_not_fit_are_refused() -> None:
    context, actions = make_moments(SYSTEM.spec, 0)
    model = OracleModel(SYSTEM)
    with pytest.raises(ValueError, match=r"actions has shape .* axis 4 is 3"):
        model_changes(model, context, actions[:, :3], num_samples=1, generator=seeded(3))
    with pytest.raises(ValueError, match=r"context\.state has shape"):
        model_changes(
            model, random_segment(SYSTEM.spec, MOMENTS, 2, seeded(0)), actions, num_samples=1, generator=seeded(3)
        )
    with pytest.raises(ValueError, match="num_samples = 0"):
        model_changes(model, context, actions, num_samples=0, generator=seeded(3))


def test_the_regression_equals_naive_loops() -> None:
    """Points collected one by one; intervals from gains of resamples written out moment by moment."""
    batch, samples, agents, dim = 12, 3, 2, 4
    modelled = torch.randn(batch, samples, agents, dim, generator=seeded(0))
    true = torch.randn(batch, agents, dim, generator=seeded(1))
    scale = dataclasses.replace(units(), live=torch.tensor([True, False, True, True]))
    bootstrap = Bootstrap(batch, num_resamples=200, seed=5)
    described = describe_gain(modelled, true, scale, bootstrap)

    def points(agent: int, moments: list[int]) -> tuple[np.ndarray, np.ndarray]:
        pairs = [
            (modelled[b, m, agent, d] / scale.std[d], true[b, agent, d] / scale.std[d])
            for b in moments
            for m in range(samples)
            for d in (0, 2, 3)
        ]
        x, y = zip(*((float(t), float(p)) for p, t in pairs), strict=True)
        return np.array(x), np.array(y)

    def slope(agent: int, moments: list[int]) -> float:
        x, y = points(agent, moments)
        return float(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])

    for agent in range(agents):
        x, y = points(agent, list(range(batch)))
        assert described["action_gain"][agent] == pytest.approx(slope(agent, list(range(batch))))
        assert described["action_gain_r2"][agent] == pytest.approx(1 - ((y - x) ** 2).sum() / (x**2).sum())
        resampled = [
            slope(agent, [b for b in range(batch) for _ in range(int(counts[b]))]) for counts in bootstrap.weights
        ]
        assert described["action_gain_ci95"][agent] == pytest.approx(np.quantile(resampled, [0.025, 0.975]))


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    """500 experiments with a gain of 0.5 and noise: the share is within four standard errors of 95 %."""
    true = torch.randn(60, 1, 4, generator=seeded(0))
    bootstrap, generator, held = Bootstrap(60, num_resamples=400), seeded(1), 0
    for _ in range(500):
        modelled = 0.5 * true[:, None] + torch.randn(60, 1, 1, 4, generator=generator)
        low, high = describe_gain(modelled, true, units(), bootstrap)["action_gain_ci95"][0]
        held += low < 0.5 < high
    assert held / 500 == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 500) ** 0.5)


def test_an_agent_whose_action_truly_changes_nothing_has_no_gain() -> None:
    true = torch.randn(5, 2, 4, generator=seeded(0))
    true[:, 1] = 0
    with pytest.raises(ValueError, match=r"action of agents \[1\] changed the true next state at none of 5 moments"):
        describe_gain(torch.randn(5, 3, 2, 4), true, units(), Bootstrap(5))


def test_changes_that_are_not_finite_are_refused() -> None:
    modelled = torch.randn(5, 3, 2, 4)
    modelled[1, 2, 0, 3] = torch.inf
    with pytest.raises(FloatingPointError, match="a change of the state is not finite"):
        describe_gain(modelled, torch.randn(5, 2, 4), units(), Bootstrap(5))
