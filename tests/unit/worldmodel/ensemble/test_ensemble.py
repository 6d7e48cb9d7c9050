"""The ensemble against plain MLPs, torch's own densities, and a law that is known."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dima.run.optimize import PartOptimizer
from envs.collector import Collector
from envs.random_agent import RandomAgent
from tests.support.dima_models import compose_group
from tests.support.toy_systems import small_linear_config
from worldmodel.contract.random_data import random_action, random_segment, random_state, random_trajectory, stir
from worldmodel.ensemble.dynamics import Forecast, disagreement
from worldmodel.ensemble.members import Members
from worldmodel.ensemble.world_model import EnsembleWorldModel
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec, Segment

SPEC = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(spec: EnvSpec = SPEC, *overrides: str) -> EnsembleWorldModel:
    words = ["+world_model=ensemble", "+world_model_preset/ensemble=smoke"]
    torch.manual_seed(0)
    config: Any = compose_group(words + [f"world_model.{word}" for word in overrides], "world_model")
    return config.build(spec)


def trained_looking(*overrides: str) -> EnsembleWorldModel:
    model = build(SPEC, "dynamics.num_members=4", *overrides)
    stir(model)
    model.update_statistics(random_trajectory(SPEC, 40, seeded(0)))
    return model.eval()


def test_members_are_mlps_of_their_own() -> None:
    torch.manual_seed(0)
    members = Members(3, [4, 6, 5, 2])
    stir(members)
    own, shared = torch.randn(3, 7, 4), torch.randn(7, 4)
    for x in (own, shared):
        together = members(x)
        for e in range(3):
            h = x[e] if x.dim() == 3 else x
            for i, layer in enumerate(members.layers):
                linear = cast("nn.Linear", cast("nn.ModuleList", layer)[e])
                h = h @ linear.weight.T + linear.bias
                h = h * torch.sigmoid(h) if i < 2 else h
            torch.testing.assert_close(together[e], h)


def test_weights_are_cut_at_two_standard_deviations() -> None:
    torch.manual_seed(0)
    weights = torch.cat([p.flatten() for n, p in Members(5, [100, 200]).named_parameters() if "weight" in n])
    std = 1 / (2 * math.sqrt(100))
    assert weights.abs().max() <= 2 * std
    # The standard deviation of a normal law cut at two: 0.8796 of what it was.
    assert float(weights.detach().std()) == pytest.approx(0.8796 * std, rel=0.01)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_the_loss_is_the_density_of_the_members_gaussians(bootstrap: bool) -> None:
    model = trained_looking(f"dynamics.bootstrap={bootstrap}", "dynamics.bound_weight=0.1")
    dynamics = model.dynamics
    segment = random_segment(SPEC, 6, 1, seeded(1), torch.tensor([[True]] * 4 + [[False]] * 2))
    segment = dataclasses.replace(segment, terminated=torch.tensor([[True], [False], [True]] + [[False]] * 3))
    z = model.state_norm.normalize(segment.state[:, 0])
    forecast = model.dynamics.forecast(z, segment.action[:, 0])
    change = model.change_norm.normalize(segment.state[:, 1] - segment.state[:, 0])
    target = torch.cat([change, model.reward_norm.normalize(segment.reward)], dim=1)

    transition = torch.cat([segment.state[:, 0], segment.action[:, 0].flatten(1)], dim=1)
    counts = dynamics.bootstrap(transition) if dynamics.bootstrap else torch.ones(4, 6)
    assert (counts[:, :4].unique().numel() > 1) == bootstrap
    expected = 0.1 * (dynamics.max_log_variance - dynamics.min_log_variance).sum()
    for e in range(4):
        for row in range(4):  # the last two are not valid
            law = torch.distributions.Normal(forecast.mean[e, row], (0.5 * forecast.log_variance[e, row]).exp())
            density = -law.log_prob(target[row]).mean() - 0.5 * math.log(2 * math.pi)
            end = functional.binary_cross_entropy_with_logits(
                forecast.end_logit[e, row], segment.terminated[row, 0].float()
            )
            expected = expected + counts[e, row] * (density + end) / 4

    torch.testing.assert_close(model.dynamics(segment, seeded(0)).loss, expected)


def test_log_variances_stay_between_their_bounds() -> None:
    model = trained_looking()
    with torch.no_grad():
        for sign in (-1e4, 1e4):
            for member in cast("nn.ModuleList", model.dynamics.members.layers[-1]):
                cast("nn.Linear", member).bias.fill_(sign)
            log_variance = model.dynamics.forecast(
                random_state(SPEC, 3, seeded(0)), random_action(SPEC, 3, seeded(0))
            ).log_variance
            assert (log_variance <= model.dynamics.max_log_variance + 1e-3).all()
            assert (log_variance >= model.dynamics.min_log_variance - 1e-3).all()


def test_disagreement_is_the_spread_of_the_means() -> None:
    mean = torch.randn(5, 7, 4, generator=seeded(0))
    forecast = Forecast(mean, torch.zeros_like(mean), torch.zeros(5, 7))
    changes = mean[..., :-1].numpy()
    expected = np.sqrt(np.std(changes, axis=0) ** 2 @ np.full(3, 1 / 3))
    np.testing.assert_allclose(disagreement(forecast).numpy(), expected, rtol=1e-5)


def test_members_that_agree_report_no_uncertainty() -> None:
    model = trained_looking()
    weights = model.dynamics.state_dict()
    for name in weights:
        if "members" in name:
            first = ".".join([*name.split(".")[:3], "0", *name.split(".")[4:]])
            weights[name] = weights[first]
    model.dynamics.load_state_dict(weights)
    state = model.start(context(), generator=seeded(0))
    _, prediction = model.step(state, random_action(SPEC, 8, seeded(2)), generator=seeded(0))
    assert prediction.uncertainty is not None
    torch.testing.assert_close(prediction.uncertainty, torch.zeros(8), atol=1e-6, rtol=0.0)


def context() -> Segment:
    return random_segment(SPEC, 8, 0, seeded(1), torch.zeros(8, 0, dtype=torch.bool))


def certain(*overrides: str) -> EnsembleWorldModel:
    """Members that are sure: what is drawn is a member's mean."""
    model = trained_looking(*overrides)
    with torch.no_grad():
        model.dynamics.max_log_variance.fill_(-60.0)
        model.dynamics.min_log_variance.fill_(-80.0)
    return model


def makers_of(model: EnsembleWorldModel, steps: int) -> Tensor:
    """Which member made each step [steps,B], found by its mean."""
    g = seeded(5)
    state = model.start(context(), generator=g)
    members = []
    for _ in range(steps):
        action = random_action(SPEC, 8, g)
        means = model.dynamics.forecast(state.z, action).mean[..., :-1]
        following, prediction = model.step(state, action, generator=g)
        assert prediction.state is not None
        moved = prediction.state - model.state_norm.denormalize(state.z)
        distance = (model.change_norm.denormalize(means) - moved).abs().amax(dim=2)  # [E, B]
        assert (distance.amin(dim=0) < 1e-3).all()
        members.append(distance.argmin(dim=0))
        state = following
    return torch.stack(members)


def test_ts1_draws_a_member_at_each_step_and_ts_inf_keeps_one() -> None:
    drawn = makers_of(certain("propagation=ts1"), 12)
    kept = makers_of(certain("propagation=ts_inf"), 12)
    assert (kept == kept[0]).all()
    assert kept[0].unique().numel() > 1
    assert (drawn != drawn[0]).any(dim=0).all()


def test_the_mean_of_all_members_draws_nothing() -> None:
    model = trained_looking("propagation=mean")
    state = model.start(context(), generator=seeded(0))
    action = random_action(SPEC, 8, seeded(2))
    one, other = (model.step(state, action, generator=seeded(seed))[1] for seed in (0, 1))
    assert one.state is not None
    assert other.state is not None
    assert torch.equal(one.state, other.state)
    forecast = model.dynamics.forecast(state.z, action)
    expected = model.state_norm.denormalize(state.z) + model.change_norm.denormalize(forecast.mean.mean(0)[:, :-1])
    torch.testing.assert_close(one.state, expected)


LINEAR = small_linear_config()


def test_it_finds_a_linear_law_its_noise_and_where_it_knows_nothing() -> None:
    spec = LINEAR.build().spec
    replay = Replay(spec, ReplayConfig(capacity=4000, recency="uniform"), num_streams=2, device="cpu")
    widths = ("dynamics.hidden_dims=[32,32]", "observations.hidden_dims=[32]", "dynamics.num_members=4")
    model = build(spec, *widths, "dynamics.optim.learning_rate=3e-3")
    stretches = Collector(LINEAR, num_envs=2, seed=0).collect(RandomAgent(spec, seeded(0)), num_steps=3000)
    for stretch in stretches:
        replay.append(stretch)
        model.update_statistics(stretch)
    g = seeded(0)
    for name, part in model.parts().items():
        optimizer = PartOptimizer(name, part)
        for _ in range(500):
            optimizer.update(replay.sample(128, 1, generator=g), g)
        optimizer.require_finite()
    model.eval()
    segment = replay.sample(2000, 1, generator=g)

    state = model.start(segment.steps(0, 0), generator=g)
    _, prediction = model.step(state, segment.action[:, 0], generator=g)
    forecast = model.dynamics.forecast(state.z, segment.action[:, 0])
    mean = segment.state[:, 0] + model.change_norm.denormalize(forecast.mean.mean(dim=0)[:, :-1])
    error = (mean - segment.state[:, 1]).std(dim=0)
    # Nothing can be better than the noise; persistence is several times worse.
    assert (error < 1.15 * LINEAR.noise_std).all()
    assert (error < 0.5 * (segment.state[:, 1] - segment.state[:, 0]).std(dim=0)).all()
    noise = (0.5 * forecast.log_variance[..., :-1]).exp().mean(dim=(0, 1)) * model.change_norm.inverse_scale
    torch.testing.assert_close(noise, torch.full((3,), LINEAR.noise_std), rtol=0.2, atol=0.0)
    decoded = model.decode_states(segment.state[:, 0])
    assert (decoded - segment.obs[:, 0]).square().mean() < 0.01 * segment.obs[:, 0].var()

    far = dataclasses.replace(state, z=8 * torch.ones_like(state.z))
    _, unknown = model.step(far, segment.action[:, 0], generator=g)
    assert prediction.uncertainty is not None
    assert unknown.uncertainty is not None
    assert unknown.uncertainty.median() > 5 * prediction.uncertainty.median()
