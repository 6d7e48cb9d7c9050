"""Open-loop forecasts against a plain loop over the model's own steps; faults; and that rows do not leak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.dima_models import lively_dima
from tests.support.linear_model import LinearModel, LinearModelConfig, LinearState
from worldmodel.contract.random_data import random_trajectory, stir
from worldmodel.evaluation.forecast import Forecast, forecast
from worldmodel.evaluation.segments import TestSegments, draw_segments
from worldmodel.protocol import WorldModel
from worldmodel.types import EnvSpec, Prediction, TensorStruct

SPEC = EnvSpec("test", 2, 4, obs_sizes=(3, 2), action_sizes=(2, 1), episode_steps=20, appends_agent_id=True)
HORIZON = 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_segments(context_length: int, num_segments: int = 6, seed: int = 0) -> TestSegments:
    episodes = [random_trajectory(SPEC, 7, seeded(100 * seed + i)) for i in range(3)]
    return draw_segments(
        episodes, context_length=context_length, horizon=HORIZON, num_segments=num_segments, generator=seeded(1)
    )


def noisy_model(kind: type[LinearModel] = LinearModel) -> LinearModel:
    """A stochastic linear model in training mode, whose dropout would show if it were left on."""
    torch.manual_seed(0)
    model = kind(LinearModelConfig(noise_std=0.5), SPEC)
    stir(model)
    return model


def assert_equal(one: TensorStruct, other: TensorStruct) -> None:
    for (name, first), (_, second) in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(first, second), name


def plain_loop(
    model: WorldModel[Any], segments: TestSegments, num_samples: int, generator: torch.Generator
) -> Forecast:
    """All segments in one batch, written out entry by entry."""
    b, m, h, n, o = segments.num_segments, num_samples, HORIZON, SPEC.num_agents, SPEC.obs_dim
    out = Forecast(
        torch.zeros(b, m, h, SPEC.state_dim), torch.zeros(b, m, h, n, o), torch.zeros(b, m, h), torch.zeros(b, m, h)
    )
    row_of = [(segment, sample) for segment in range(b) for sample in range(m)]
    rows = segments[torch.tensor([segment for segment, _ in row_of])]
    state = model.start(rows.context, generator=generator)
    for t in range(h):
        state, predicted = model.step(state, rows.action[:, t], generator=generator)
        assert predicted.state is not None
        assert out.state is not None
        for row, place in enumerate(row_of):
            out.state[place][t] = predicted.state[row]
            out.obs[place][t] = predicted.obs[row]
            out.reward[place][t] = predicted.reward[row]
            out.termination[place][t] = 1 - predicted.continuation[row]
    return out


def test_a_forecast_is_the_models_own_rollout_under_the_recorded_actions() -> None:
    for model in (noisy_model(), lively_dima(SPEC)):
        segments = make_segments(model.context_length)
        model.train(False)
        expected = plain_loop(model, segments, 3, seeded(2))

        assert_equal(forecast(model, segments, num_samples=3, generator=seeded(2)), expected)


def test_chunks_are_forecasts_of_their_own_drawn_one_after_the_other() -> None:
    model = noisy_model()
    segments = make_segments(1)
    generator = seeded(2)

    chunked = forecast(model, segments, num_samples=3, generator=seeded(2), batch_rows=8)

    parts = [forecast(model, segments[i : i + 2], num_samples=3, generator=generator) for i in (0, 2, 4)]
    for i, part in enumerate(parts):
        assert_equal(chunked[2 * i : 2 * i + 2], part)


def test_a_segment_wider_than_the_batch_is_still_forecast_whole() -> None:
    segments = make_segments(1)

    result = forecast(noisy_model(), segments, num_samples=7, generator=seeded(2), batch_rows=4)

    assert result.obs.shape == (6, 7, HORIZON, 2, SPEC.obs_dim)


def test_samples_differ_and_the_seed_decides_them() -> None:
    model, segments = noisy_model(), make_segments(1)
    one, same, other = (forecast(model, segments, num_samples=4, generator=seeded(s)) for s in (2, 2, 3))

    assert_equal(one, same)
    assert one.state is not None
    assert not torch.equal(one.reward, other.reward)
    flat = one.state.flatten(0, 1).flatten(1)
    assert len(flat.unique(dim=0)) == len(flat), "two forecasts are the same"


@pytest.mark.parametrize("make", [noisy_model, lambda: lively_dima(SPEC)], ids=["linear", "dima"])
def test_a_segments_forecast_does_not_depend_on_what_the_others_hold(make: Callable[[], WorldModel[Any]]) -> None:
    """Of two sets of segments that share one, at the same place: the noise is then the same as well."""
    model = make()
    segments = make_segments(model.context_length)
    strangers = make_segments(model.context_length, seed=5)
    kept = 2
    is_kept = torch.arange(6) == kept

    def mix(name: str, mine: torch.Tensor) -> torch.Tensor:
        return torch.where(is_kept.view(-1, *[1] * (mine.dim() - 1)), mine, others[name])

    others = dict(strangers.tensors())
    context = {name: mix(f"context.{name}", tensor) for name, tensor in segments.context.tensors()}
    rest = {name: mix(name, tensor) for name, tensor in segments.tensors() if "." not in name}
    mixed = TestSegments(context=dataclasses.replace(segments.context, **context), **rest)

    alone, among_strangers = (forecast(model, which, num_samples=3, generator=seeded(2)) for which in (segments, mixed))

    assert_equal(alone[kept], among_strangers[kept])
    assert not torch.equal(alone.reward[0], among_strangers.reward[0])


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_judged_without_dropout_and_left_in_its_mode(mode: bool) -> None:
    model, segments = noisy_model(), make_segments(1)
    model.train(False)
    expected = plain_loop(model, segments, 2, seeded(2))
    model.train(mode)

    assert_equal(forecast(model, segments, num_samples=2, generator=seeded(2)), expected)
    assert model.training == mode
    assert model.dynamics.dropout.training == mode


class Poisoned(LinearModel):
    """Gives a NaN in one entry of one row at the third step."""

    calls = 0

    def step(self, state: LinearState, action: torch.Tensor, *, generator: torch.Generator) -> Any:
        following, predicted = super().step(state, action, generator=generator)
        self.calls += 1
        if self.calls == 3:
            predicted.obs[4, 1, 2] = torch.nan
        return following, predicted


def test_a_nan_is_named_where_it_is_born() -> None:
    model = noisy_model(Poisoned)

    with pytest.raises(FloatingPointError, match=r"Poisoned, step 3 of 5, .*obs\[1, 1, 1, 2\] is nan"):
        forecast(model, make_segments(1), num_samples=3, generator=seeded(2))
    assert model.training, "the mode is put back after a fault too"


class Stateless(LinearModel):
    """Predicts observations only."""

    def step(self, state: LinearState, action: torch.Tensor, *, generator: torch.Generator) -> Any:
        following, predicted = super().step(state, action, generator=generator)
        return following, Prediction(predicted.obs, None, predicted.reward, predicted.continuation)


def test_a_model_without_a_global_state_is_forecast_without_one() -> None:
    segments = make_segments(1)

    result = forecast(noisy_model(Stateless), segments, num_samples=2, generator=seeded(2), batch_rows=4)

    assert result.state is None
    assert torch.equal(
        result.obs, forecast(noisy_model(), segments, num_samples=2, generator=seeded(2), batch_rows=4).obs
    )


def test_segments_with_another_context_and_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="draw them with context_length = 1"):
        forecast(noisy_model(), make_segments(2), num_samples=2, generator=seeded())
    with pytest.raises(ValueError, match="num_samples = 0"):
        forecast(noisy_model(), make_segments(1), num_samples=0, generator=seeded())


@pytest.mark.gpu
def test_segments_stay_on_the_cpu_while_the_model_imagines_on_a_gpu() -> None:
    model = noisy_model().to(torch.device("cuda"))

    result = forecast(model, make_segments(1), num_samples=3, generator=torch.Generator("cuda").manual_seed(0))

    assert all(tensor.device.type == "cpu" for _, tensor in result.tensors())
