"""A rollout that was cut is worth what its known steps are: nothing beyond the cut is looked at, whatever it holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from imagination.returns import lambda_returns
from tests.support.doubtful_model import BATCH, HORIZON, SPEC, Doubtful, behaviour, config, doubtful, learn, roll
from worldmodel.types import Prediction


def test_rollouts_are_cut_before_the_first_step_that_is_too_uncertain() -> None:
    rollout, doubt = roll(doubtful(), config("truncate")), roll(doubtful(), config("penalise")).uncertainty
    bound = 1.2 * sorted(doubt[:, 0].tolist())[(BATCH - 1) // 2]
    expected = torch.ones(BATCH, HORIZON, dtype=torch.bool)
    for i in range(BATCH):
        for t in range(HORIZON):
            if any(float(value) > bound for value in doubt[i, : t + 1]):
                expected[i, t] = False
    assert torch.equal(rollout.known, expected)
    assert torch.equal(rollout.uncertainty, torch.where(expected, doubt, 0.0))
    assert 0 < expected.float().mean() < 1


def test_beyond_a_cut_the_last_known_view_stands_and_nothing_happens() -> None:
    plain, cut = roll(doubtful(), None), roll(doubtful(), config("truncate"))
    for i, steps in enumerate(cut.known.sum(dim=1).tolist()):
        for name in ("action", "log_prob", "reward", "continuation"):
            assert torch.equal(getattr(cut, name)[i, :steps], getattr(plain, name)[i, :steps]), name
            assert (getattr(cut, name)[i, steps:] == (1 if name == "continuation" else 0)).all(), name
        for name in ("actor_view", "critic_view"):
            view, expected = getattr(cut, name)[i], getattr(plain, name)[i, : steps + 1]
            assert torch.equal(view[: steps + 1], expected), name
            assert torch.equal(view[steps:], expected[-1:].expand_as(view[steps:])), name


class Diverging(Doubtful):
    """All that comes of a state of a magnitude in `spoilt` is a NaN: what is predicted, the state, or the reward."""

    spoilt = (torch.inf, torch.inf)
    what = "all"

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        assert prediction.uncertainty is not None
        doubt, nan = prediction.uncertainty, torch.full_like(prediction.uncertainty, torch.nan)
        bad = (doubt > self.spoilt[0]) & (doubt <= self.spoilt[1])
        if self.what in ("all", "state"):
            following = following.map(lambda t: torch.where(bad.reshape(-1, *[1] * (t.ndim - 1)), torch.nan, t))
        if self.what in ("all", "reward"):
            prediction = dataclasses.replace(prediction, reward=torch.where(bad, nan, prediction.reward))
        return following, prediction


def diverging(what: str, low: float, high: float = torch.inf) -> Diverging:
    torch.manual_seed(0)
    model = Diverging(SPEC)
    model.what, model.spoilt = what, (low, high)
    return model


def test_what_diverges_beyond_a_cut_is_not_looked_at() -> None:
    doubt = roll(doubtful(), config("penalise")).uncertainty
    bound = 1.2 * float(doubt[:, 0].median())
    model = diverging("all", bound)
    with pytest.raises(FloatingPointError):
        learn(model, roll(model, None))
    weights, metrics = learn(model, roll(model, config("truncate")))
    sound_weights, sound_metrics = learn(doubtful(), roll(doubtful(), config("truncate")))
    assert all(torch.equal(weights[name], value) for name, value in sound_weights.items())
    assert metrics == sound_metrics


@pytest.mark.parametrize(("what", "field"), [("reward", "reward"), ("state", "actor_view")])
def test_a_nan_of_known_steps_is_refused(what: str, field: str) -> None:
    """Also of the last one: the state that it leads to is the one whose value stands for what is cut off."""
    middle = float(roll(doubtful(), config("penalise")).uncertainty[:, 0].median())
    model = diverging(what, 0.9 * middle, middle)
    with pytest.raises(FloatingPointError, match=rf"imagined rollout: {field}\["):
        learn(model, roll(model, config("truncate")))


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
        log_prob=torch.where(beyond[..., None], -1e3, cut.log_prob),
        uncertainty=torch.where(beyond, 1e3, cut.uncertainty),
    )
    (weights, metrics), (others, other_metrics) = learn(model, cut), learn(model, spoilt)
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], msg=name)
    for name in metrics:
        torch.testing.assert_close(metrics[name], other_metrics[name], msg=name)


def test_metrics_are_those_of_known_steps() -> None:
    model = doubtful()
    cut = roll(model, config("truncate"))
    metrics = learn(model, cut)[1]
    mean = {name: float(getattr(cut, name)[cut.known].mean()) for name in ("reward", "continuation", "uncertainty")}
    assert {name: float(metrics[f"imagination/{name}_mean"]) for name in mean} == pytest.approx(mean, rel=1e-5)
    assert float(metrics["imagination/known_share"]) == pytest.approx(float(cut.known.float().mean()))
    torch.manual_seed(0)
    mappo = behaviour().build(SPEC, model)
    batch, before = mappo._prepare(cut)
    known = cut.known.flatten()
    with torch.no_grad():
        value = mappo.critic.denormalize(batch.old_output)[known]
    target = batch.target[known]
    explained = 1 - (target - value).var(correction=0) / target.var(correction=0)
    torch.testing.assert_close(before["critic/explained_variance"], explained, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(before["imagination/return_mean"], target.mean())


def test_nothing_known_leaves_the_update_finite() -> None:
    model = doubtful()
    cut = roll(model, config("truncate"))
    nothing = dataclasses.replace(cut, known=torch.zeros_like(cut.known))
    metrics = behaviour().build(SPEC, model).update(nothing, torch.Generator().manual_seed(0))
    assert all(bool(torch.isfinite(value).all()) for value in metrics.values())
