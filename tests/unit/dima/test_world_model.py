"""The DIMA world model: what its carry holds after each call, in which units, and which options it obeys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dima.sampler import sample_next_state
from dima.world_model import DimaState, DimaWorldModel
from tests.support.dima_models import dima_config, lively_dima, make_spec
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import (
    random_action,
    random_obs,
    random_segment,
    random_state,
    random_trajectory,
    random_transition,
)
from worldmodel.evaluation.forecast import Forecast, forecast
from worldmodel.evaluation.segments import draw_segments
from worldmodel.protocol import OrderedWorldModel, StateDecoding
from worldmodel.types import EnvSpec, Segment, Transition

SPEC = EnvSpec("test", 2, 5, obs_sizes=(3, 2), action_sizes=(2, 1), episode_steps=20, appends_agent_id=True)
BATCH = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> DimaWorldModel:
    return lively_dima(SPEC)


@pytest.fixture
def context() -> Segment:
    """Two transitions; row 1 lacks the first, row 2 both."""
    valid = torch.tensor([[1, 1], [0, 1], [0, 0], [1, 1]], dtype=torch.bool)
    return random_segment(SPEC, BATCH, 2, seeded(1), valid)


def begin(model: DimaWorldModel, context: Segment) -> DimaState:
    return model.start(context, generator=seeded())


def real_step(is_first: bool, seed: int = 5) -> Transition:
    return random_transition(SPEC, BATCH, seeded(seed), torch.full((BATCH,), is_first))


def test_start_holds_normalised_states_and_zeros_where_there_was_none(model: DimaWorldModel, context: Segment) -> None:
    state = begin(model, context)

    expected = model.state_norm.normalize(context.state)
    assert torch.equal(state.z[0], expected[0])
    assert torch.equal(state.z[1, 1:], expected[1, 1:])
    assert torch.equal(state.z[2, 2], expected[2, 2])
    assert not state.z[1, :1].any()
    assert not state.z[2, :2].any()
    assert torch.equal(state.past_action, context.action)
    assert torch.equal(state.last_action, context.action[:, -1])


def test_start_at_an_episodes_first_step_is_start_on_an_empty_context(model: DimaWorldModel) -> None:
    obs, first = random_obs(SPEC, BATCH, seeded(2)), random_state(SPEC, BATCH, seeded(3))

    state = begin(model, Segment.from_first(obs, first, SPEC.action_dim, model.context_length))

    assert torch.equal(state.z[:, -1], model.state_norm.normalize(first))
    assert not state.z[:, :-1].any()
    assert not state.past_action.any()
    assert not state.last_action.any()


@pytest.mark.parametrize("first_obs", ["real", "decoded"])
def test_a_rollout_starts_with_the_real_or_the_decoded_observation(context: Segment, first_obs: str) -> None:
    model = lively_dima(SPEC, f"first_obs={first_obs}")
    state = begin(model, context)

    expected = context.obs[:, -1] if first_obs == "real" else model.decoder.decode(state.z[:, -1])
    assert torch.equal(state.obs, expected)
    assert torch.equal(model.view(state).actor, expected)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("action", torch.zeros(BATCH, 3, 2, 2)),
        ("action", torch.zeros(BATCH, 2, 2, 3)),
        ("state", torch.zeros(BATCH, 3, 6)),
    ],
)
def test_contexts_of_another_shape_are_refused(
    model: DimaWorldModel, context: Segment, name: str, broken: Tensor
) -> None:
    with pytest.raises(ValueError, match=f"context.{name} has shape"):
        begin(model, dataclasses.replace(context, **{name: broken}))


def test_step_shifts_the_carry_and_predicts_in_the_environments_units(model: DimaWorldModel, context: Segment) -> None:
    state, action = begin(model, context), random_action(SPEC, BATCH, seeded(4))

    following, prediction = model.step(state, action, generator=seeded(6))

    assert torch.equal(following.z[:, :-1], state.z[:, 1:])
    assert torch.equal(following.past_action, torch.cat([state.past_action[:, 1:], action[:, None]], dim=1))
    assert torch.equal(following.last_action, action)
    assert prediction.state is not None
    torch.testing.assert_close(model.state_norm.normalize(prediction.state), following.z[:, -1], rtol=1e-4, atol=1e-4)
    assert torch.equal(prediction.obs, model.decoder.decode(following.z[:, -1]))
    assert torch.equal(prediction.obs, following.obs)


def test_step_is_the_sampler_in_the_denoisers_units(model: DimaWorldModel, context: Segment) -> None:
    state, action = begin(model, context), random_action(SPEC, BATCH, seeded(4))

    following, _ = model.step(state, action, generator=seeded(6))

    sampler = model.config.sampler
    inputs = (0.5 * state.z, state.past_action, action, seeded(6))
    with torch.no_grad():
        drawn = sample_next_state(model.denoiser, model.reveal, sampler, *inputs)
    torch.testing.assert_close(0.5 * following.z[:, -1], drawn)


def test_reward_and_end_are_those_of_the_state_before_the_step(model: DimaWorldModel, context: Segment) -> None:
    state, action = begin(model, context), random_action(SPEC, BATCH, seeded(4))

    _, prediction = model.step(state, action, generator=seeded(6))

    cache = model.reward_termination.initial_cache(BATCH, "cpu", torch.float32)
    _, reward, continuation = model.reward_termination.step(cache, state.z[:, -1], action)
    assert torch.equal(prediction.reward, reward)
    assert torch.equal(prediction.continuation, continuation)


def test_a_run_away_state_is_stopped_at_the_clip(context: Segment) -> None:
    model = lively_dima(SPEC, "state_clip=0.5")

    following, _ = model.step(begin(model, context), random_action(SPEC, BATCH, seeded(4)), generator=seeded(6))

    assert following.z[:, -1].abs().max() == 0.5


def test_an_observed_first_step_is_a_start(model: DimaWorldModel, context: Segment) -> None:
    """Whatever was imagined before; but for what agents see, which is the real observation here."""
    before, _ = model.step(begin(model, context), random_action(SPEC, BATCH, seeded(4)), generator=seeded(6))
    seen = real_step(is_first=True)
    assert seen.state is not None

    observed = model.observe(before, seen, generator=seeded())
    started = begin(model, Segment.from_first(seen.obs, seen.state, SPEC.action_dim, model.context_length))

    assert torch.equal(observed.obs, seen.obs)
    action = random_action(SPEC, BATCH, seeded(7))
    one, other = (model.step(state, action, generator=seeded(8))[1] for state in (observed, started))
    for (name, first), (_, second) in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(first, second), name


def test_observed_steps_become_the_context_of_imagination(model: DimaWorldModel) -> None:
    """Watching an episode and then imagining is the same as starting from its last steps."""
    episode = random_segment(SPEC, BATCH, 5, seeded(9))
    first = Segment.from_first(episode.obs[:, 0], episode.state[:, 0], SPEC.action_dim, model.context_length)
    state = begin(model, first)
    for t in range(5):
        seen = Transition(
            episode.action[:, t], episode.obs[:, t + 1], episode.state[:, t + 1], torch.zeros(BATCH, dtype=torch.bool)
        )
        state = model.observe(state, seen, generator=seeded())
    started = begin(model, episode.steps(3, 5))

    action = random_action(SPEC, BATCH, seeded(7))
    one, other = (model.step(s, action, generator=seeded(8))[1] for s in (state, started))
    for (name, first_tensor), (_, second) in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(first_tensor, second), name


def test_a_real_step_ends_the_imagined_stretch_that_rewards_remember(model: DimaWorldModel, context: Segment) -> None:
    imagined, _ = model.step(begin(model, context), random_action(SPEC, BATCH, seeded(4)), generator=seeded(6))
    assert imagined.cache.length > 0

    assert model.observe(imagined, real_step(is_first=False), generator=seeded()).cache.length == 0


def test_without_a_global_state_only_what_agents_see_is_taken_over(model: DimaWorldModel, context: Segment) -> None:
    state, seen = begin(model, context), real_step(is_first=False)

    observed = model.observe(state, dataclasses.replace(seen, state=None), generator=seeded())

    assert torch.equal(observed.z, state.z)
    assert torch.equal(model.view(observed).actor, seen.obs)


@pytest.mark.parametrize("critic_input", ["state", "state_action"])
def test_the_critic_sees_the_state_and_if_asked_the_last_joint_action(context: Segment, critic_input: str) -> None:
    model = lively_dima(SPEC, f"critic_input={critic_input}")
    action = random_action(SPEC, BATCH, seeded(4))
    state, _ = model.step(begin(model, context), action, generator=seeded(6))

    expected = 0.5 * state.z[:, -1]
    if critic_input == "state_action":
        expected = torch.cat([expected, action.flatten(1)], dim=1)
    assert torch.equal(model.view(state).critic, expected)
    assert model.critic_dim == expected.shape[1]


def test_actors_may_see_normalised_observations_but_ids_and_padding_as_they_are(context: Segment) -> None:
    model = lively_dima(SPEC, "normalize_obs=true")
    trajectory = random_trajectory(SPEC, 200, seeded(10))
    shifted = dataclasses.replace(trajectory, obs=trajectory.obs + 7 * (trajectory.obs.abs() > 1e-9))
    shifted.obs[:, :, -2:] = torch.eye(2)
    model.update_statistics(shifted)
    state = dataclasses.replace(begin(model, context), obs=shifted.obs[:BATCH])

    actor = model.view(state).actor

    mean = model.obs_norm.mean.unflatten(0, (2, 5))
    std = model.obs_norm.var.sqrt().unflatten(0, (2, 5))
    real = SPEC.obs_mask()
    real[:, -2:] = False
    expected = torch.where(real, (shifted.obs[:BATCH] - mean) / std, shifted.obs[:BATCH]).float()
    torch.testing.assert_close(actor, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(actor[:, :, -2:], torch.eye(2).expand(BATCH, -1, -1))
    assert not actor[:, 1, 2].any()


def test_statistics_do_not_depend_on_how_an_episode_is_cut() -> None:
    whole, cut = (dima_config().build(SPEC) for _ in range(2))
    episode = random_trajectory(SPEC, 12, seeded(11))

    whole.update_statistics(episode)
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        part = dataclasses.replace(
            episode,
            obs=episode.obs[start : stop + 1],
            state=episode.state[start : stop + 1],
            action=episode.action[start:stop],
            reward=episode.reward[start:stop],
            terminated=episode.terminated[start:stop],
            truncated=episode.truncated[start:stop],
            is_start=start == 0,
        )
        cut.update_statistics(part)

    for norm in ("state_norm", "change_norm", "obs_norm", "reward_norm"):
        one, other = getattr(whole, norm), getattr(cut, norm)
        torch.testing.assert_close(one.mean, other.mean)
        torch.testing.assert_close(one.var, other.var)
        assert one.count == other.count
    torch.testing.assert_close(whole.state_norm.mean, episode.state.double().mean(dim=0))
    torch.testing.assert_close(whole.change_norm.var, episode.state.double().diff(dim=0).var(dim=0, correction=0))


def test_statistics_may_be_frozen() -> None:
    model = dima_config("freeze_normalizers_after=10").build(SPEC)
    model.update_statistics(random_trajectory(SPEC, 12, seeded(11)))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    model.update_statistics(random_trajectory(SPEC, 12, seeded(12)))

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_updated_between_two_steps_are_the_ones_imagined_with(context: Segment) -> None:
    """Fused optimisers change weights without a trace; a model that kept anything of the old ones would not see it."""
    model = lively_dima(SPEC)
    action = random_action(SPEC, BATCH, seeded(4))
    state = begin(model, context)
    before = model.step(state, action, generator=seeded(6))[1].state
    optimizer = torch.optim.AdamW(model.denoiser.parameters(), lr=1e-2, fused=True)
    segment = random_segment(SPEC, 8, model.denoiser.segment_length, seeded(13))
    model.denoiser(segment, seeded(14)).loss.backward()
    optimizer.step()

    after = model.step(state, action, generator=seeded(6))[1].state

    fresh = dima_config().build(SPEC)
    fresh.load_state_dict(model.state_dict())
    fresh.train(False)
    expected = fresh.step(begin(fresh, context), action, generator=seeded(6))[1].state
    assert before is not None
    assert after is not None
    assert expected is not None
    assert (before != after).any(dim=1).all()
    assert torch.equal(after, expected)


def test_parts_come_in_the_order_of_algorithm_1_and_share_nothing(model: DimaWorldModel) -> None:
    parts = model.parts()
    owners = [id(parameter) for part in parts.values() for parameter in part.parameters()]

    assert list(parts) == ["decoder", "denoiser", "reward_termination"]
    assert sorted(owners) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize(
    ("agents", "override", "steps"),
    [(2, "num_denoising_steps=null", 4), (3, "num_denoising_steps=null", 3), (2, "num_denoising_steps=7", 7)],
)
def test_number_of_noise_levels(agents: int, override: str, steps: int) -> None:
    model = dima_config(override).build(make_spec(num_agents=agents))

    assert len(model.reveal.sigmas) == steps + 1


def test_an_order_that_does_not_fit_the_team_is_refused_when_the_model_is_built() -> None:
    config = dima_config("order=[1,2]")

    with pytest.raises(ConfigError, match=r"order = \[1, 2\]: expected 4 agent numbers"):
        config.build(SPEC)


@pytest.mark.parametrize("preset", ["paper", "published"])
@pytest.mark.parametrize("spec", [make_spec(17, 2, 3, 8), make_spec(105, 4, 2, 30)], ids=["halfcheetah", "ant"])
def test_the_large_presets_have_the_unet_of_table_3(preset: str, spec: EnvSpec) -> None:
    unet = dima_config(preset=preset).build(spec).denoiser.unet

    assert sum(parameter.numel() for parameter in unet.parameters()) == 2_076_992


def test_the_published_reward_model_has_the_published_size() -> None:
    part = dima_config(preset="published").build(make_spec(17, 2, 3)).reward_termination

    assert sum(parameter.numel() for parameter in part.parameters()) == 8_440_066


TRIO = make_spec(state_dim=4, num_agents=3, action_dim=2, obs_dim=3)
"""Three agents, so that no order is the reverse of every other."""

VARIANTS: dict[str, tuple[Callable[[DimaWorldModel], DimaWorldModel], tuple[str, ...]]] = {
    "order by name": (lambda model: model.with_order("ascending"), ("order=ascending",)),
    "order by numbers": (lambda model: model.with_order((2, 3, 1)), ("order=[2,3,1]",)),
    "random order": (lambda model: model.with_order("random"), ("order=random",)),
    "no actions": (lambda model: model.without_actions(), ("reveal=none",)),
    "more noise levels": (lambda model: model.with_sampling(num_denoising_steps=7), ("num_denoising_steps=7",)),
    "another solver": (lambda model: model.with_sampling(solver="heun"), ("sampler.solver=heun",)),
    "one after the other": (
        lambda model: model.with_sampling(5, "heun").with_order("cycle"),
        ("num_denoising_steps=5", "sampler.solver=heun", "order=cycle"),
    ),
}
"""How a model is sampled otherwise, and the overrides with which it could have been built that way."""


def imagined(model: DimaWorldModel, spec: EnvSpec = TRIO, horizon: int = 4) -> Forecast:
    """Three open-loop forecasts each of eight stretches of made-up episodes."""
    episodes = [random_trajectory(spec, 9, seeded(20 + i)) for i in range(3)]
    segments = draw_segments(
        episodes, context_length=model.context_length, horizon=horizon, num_segments=8, generator=seeded(21)
    )
    return forecast(model, segments, num_samples=3, generator=seeded(22))


def assert_equal_forecasts(one: Forecast, other: Forecast) -> None:
    for (name, first), (_, second) in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(first, second), name


def differ(one: Forecast, other: Forecast) -> bool:
    """Whether the states do; observations pass through a quantiser, which swallows small differences."""
    assert one.state is not None
    assert other.state is not None
    return not torch.equal(one.state, other.state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_the_model_that_is_built_that_way_and_loads_the_weights(variant: str) -> None:
    make, overrides = VARIANTS[variant]
    base = ("reveal=progressive", "order=descending")
    model = lively_dima(TRIO, *base)
    before = imagined(model)

    varied = make(model)

    built = lively_dima(TRIO, *base, *overrides, seed=1)
    built.load_state_dict(model.state_dict())
    result = imagined(varied)
    assert_equal_forecasts(result, imagined(built))
    assert varied.config == built.config
    assert differ(result, before)
    assert_equal_forecasts(imagined(model), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_shares_every_weight_and_statistic(variant: str) -> None:
    model = lively_dima(TRIO, "reveal=cumulative")
    config, masks = model.config, model.reveal.masks.clone()

    varied = VARIANTS[variant][0](model)

    mine, theirs = model.state_dict(), varied.state_dict()
    assert list(theirs) == list(mine)
    assert all(theirs[name].data_ptr() == tensor.data_ptr() for name, tensor in mine.items())
    assert model.config is config
    assert torch.equal(model.reveal.masks, masks)
    assert all(part is varied.parts()[name] for name, part in model.parts().items())


def test_a_variant_follows_its_model_through_training() -> None:
    model = lively_dima(TRIO)
    varied = model.with_order("ascending")
    before = imagined(varied)
    model.denoiser(random_segment(TRIO, 8, model.denoiser.segment_length, seeded(13)), seeded(14)).loss.backward()
    torch.optim.AdamW(model.denoiser.parameters(), lr=1e-2).step()
    model.update_statistics(random_trajectory(TRIO, 30, seeded(15)))

    after = imagined(varied)

    built = lively_dima(TRIO, "order=ascending", seed=1)
    built.load_state_dict(model.state_dict())
    assert_equal_forecasts(after, imagined(built))
    assert differ(after, before)


def test_training_goes_on_as_the_model_was_configured() -> None:
    """The variant's schedule is for sampling: the loss keeps showing what `reveal` says."""
    model = lively_dima(TRIO, "reveal=one")
    segment = random_segment(TRIO, 8, model.denoiser.segment_length, seeded(13))
    before = model.denoiser(segment, seeded(14)).loss

    hidden = model.without_actions()

    assert torch.equal(hidden.parts()["denoiser"](segment, seeded(14)).loss, before)
    blind = lively_dima(TRIO, "reveal=none")
    assert not torch.equal(blind.denoiser(segment, seeded(14)).loss, before)


@pytest.mark.parametrize("reveal", ["joint", "none"])
def test_order_does_not_matter_where_all_or_nothing_is_revealed(reveal: str) -> None:
    """To the bit, over a whole open-loop forecast with the same noise; with one agent a level it does matter."""
    model, one_by_one = lively_dima(TRIO, f"reveal={reveal}"), lively_dima(TRIO, "reveal=one")
    expected = imagined(model)
    ordered = imagined(one_by_one.with_order("descending"))

    for order in ("ascending", "descending", "cycle", "random", (2, 1, 3)):
        assert_equal_forecasts(imagined(model.with_order(order)), expected)
        if order != "descending":
            assert differ(imagined(one_by_one.with_order(order)), ordered)


def test_without_actions_only_what_was_done_before_has_a_say(context: Segment) -> None:
    """The current joint action changes nothing of the next state; once it is past, it does."""
    model = lively_dima(SPEC, "reveal=joint").without_actions()
    state, actions = begin(model, context), [random_action(SPEC, BATCH, seeded(i)) for i in (4, 5)]

    (one, first), (other, second) = (model.step(state, action, generator=seeded(6)) for action in actions)
    later = [model.step(s, actions[0], generator=seeded(7))[0].z[:, -1] for s in (one, other)]

    assert torch.equal(one.z, other.z)
    assert not torch.equal(first.reward, second.reward)
    assert not torch.equal(*later)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: model.with_order((1, 2)), r"order = \[1, 2\]: expected 3 agent numbers"),
        (lambda model: model.with_order("sideways"), "order"),
        (lambda model: model.with_sampling(num_denoising_steps=2), "num_denoising_steps = 2 for 3 agents"),
        (lambda model: model.with_sampling(num_denoising_steps=0), "num_denoising_steps = 0"),
        (lambda model: model.with_sampling(solver="leapfrog"), "solver = 'leapfrog'"),
    ],
)
def test_impossible_variants_are_refused(make: Callable[[DimaWorldModel], DimaWorldModel], message: str) -> None:
    model = lively_dima(TRIO)

    with pytest.raises(ConfigError, match=message):
        make(model)


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_decode_states_is_what_a_rollout_shows_of_them(context: Segment, quantizer: str) -> None:
    model = lively_dima(SPEC, f"decoder.quantizer={quantizer}", "first_obs=decoded")
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()

    decoded = model.decode_states(context.state[:, -1])

    assert torch.equal(decoded, begin(model, context).obs)
    assert not decoded.requires_grad
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_offers_both_optional_abilities(model: DimaWorldModel) -> None:
    assert isinstance(model, OrderedWorldModel)
    assert isinstance(model, StateDecoding)
