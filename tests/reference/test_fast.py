"""The imagined step made fast against the model itself: same numbers, whatever the options, and the same contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dima.fast.convolution import PackedConv
from dima.world_model import DimaWorldModel
from imagination.rollout import imagine
from tests.support.dima_models import compose_group, lively_dima, make_spec
from worldmodel.contract.random_data import random_action, random_segment
from worldmodel.protocol import WorldModel
from worldmodel.short_convolution import ShortConv
from worldmodel.types import EnvSpec, ImaginedRollout

HORIZON = 4
RTOL, ATOL = 1e-4, 2e-5
"""Sums are taken in another order: float32 rounding, carried through four noise levels and four steps."""


def roll_out(
    model: WorldModel[Any], spec: EnvSpec, batch: int = 7, horizon: int = HORIZON, device: str = "cpu"
) -> ImaginedRollout:
    """A policy's rollout, the same random numbers every time."""
    torch.manual_seed(3)
    words = ["+policy=mappo", "policy.policy.hidden_dims=[16]"]
    policy = compose_group(words, "policy").policy.build(spec, model.actor_dim).to(device)
    generator = torch.Generator().manual_seed(4)
    valid = torch.arange(model.context_length) >= (torch.arange(batch) % 3)[:, None]  # some rows begin an episode
    context = random_segment(spec, batch, model.context_length, generator, valid)
    return imagine(model, policy, context.to(device), horizon, torch.Generator(device).manual_seed(5))


def assert_alike(fast: ImaginedRollout, eager: ImaginedRollout) -> None:
    for (name, got), (_, expected) in zip(fast.tensors(), eager.tensors(), strict=True):
        torch.testing.assert_close(got, expected, rtol=RTOL, atol=ATOL, msg=lambda text, name=name: f"{name}: {text}")


OPTIONS = [
    ("reveal=one",),
    ("reveal=one", "order=random", "num_denoising_steps=5"),
    ("reveal=cumulative", "order=cycle", "sampler.solver=heun"),
    (
        "reveal=progressive",
        "order=random",
        "sampler.reveal_sigma=2.0",
        "sampler.keep_noise=true",
        "num_denoising_steps=5",
    ),
    ("reveal=joint", "sampler.solver=multistep", "denoiser.scale_context=true", "sigma_offset_noise=0.3"),
    ("reveal=none", "sampler.solver=EDMEulerScheduler"),
    ("denoiser.context_states=1", "denoiser.channels=[32]", "denoiser.depths=[2]"),
    ("denoiser.context_states=7", "denoiser.channels=[32,64,32]", "denoiser.depths=[1,2,1]"),
    ("reward_termination.action_encoder=attention", "reward_termination.end_loss=cross_entropy"),
    ("action_encoder=perceiver", "target=change", "critic_input=state_action"),
    ("reveal=cumulative", "order=cycle", "sampler.solver=heun", "denoiser.bypass=linear", "sigma_offset_noise=0.3"),
    ("reveal=one", "order=random", "num_denoising_steps=5", "denoiser.bypass=linear", "target=change"),
]


@pytest.mark.parametrize("num_agents", [1, 2, 3])
@pytest.mark.parametrize("overrides", OPTIONS, ids=" ".join)
def test_a_rollout_is_the_same_within_rounding(overrides: tuple[str, ...], num_agents: int) -> None:
    spec = make_spec(num_agents=num_agents)
    model = lively_dima(spec, *overrides)

    assert_alike(roll_out(model.accelerated(), spec), roll_out(model, spec))


@pytest.mark.parametrize("preset", ["paper", "cpu", "published"])
def test_the_presets_are_the_same_within_rounding(preset: str) -> None:
    spec = make_spec(state_dim=17, num_agents=2)
    model = lively_dima(spec, preset=preset)

    assert_alike(roll_out(model.accelerated(), spec), roll_out(model, spec))


def test_a_group_norm_that_turns_its_output_around_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose kernel knows channels in the middle only."""
    spec = make_spec()
    model = lively_dima(spec)
    expected = roll_out(model, spec)
    group_norm = functional.group_norm
    monkeypatch.setattr(
        functional, "group_norm", lambda x, *args, **kwargs: group_norm(x.contiguous(), *args, **kwargs).contiguous()
    )

    assert_alike(roll_out(model.accelerated(), spec), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("overrides", [(), ("reveal=one", "order=random", "num_denoising_steps=5")], ids=" ".join)
def test_a_rollout_on_a_gpu_is_the_same_within_rounding(overrides: tuple[str, ...]) -> None:
    spec = make_spec()
    model = lively_dima(spec, *overrides).to(torch.device("cuda"))

    assert_alike(roll_out(model.accelerated(), spec, device="cuda"), roll_out(model, spec, device="cuda"))


def test_many_agents_take_the_fused_attention() -> None:
    spec = make_spec(num_agents=9, action_dim=2)
    model = lively_dima(spec, "reward_termination.action_encoder=attention")

    assert_alike(roll_out(model.accelerated(), spec), roll_out(model, spec))


def test_a_rollout_longer_than_the_window_starts_its_memory_anew() -> None:
    spec = make_spec()
    model = lively_dima(spec, "reward_termination.window=3")

    assert_alike(roll_out(model.accelerated(), spec, horizon=8), roll_out(model, spec, horizon=8))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("reward_termination.action_encoder=attention",),
        ("action_encoder=perceiver",),
        ("denoiser.bypass=linear",),
    ],
    ids=" ".join,
)
def test_bfloat16_stays_near(overrides: tuple[str, ...]) -> None:
    """Eight bits of mantissa: rewards and states within a few per cent of their spread, and not the same numbers."""
    spec = make_spec(state_dim=17)
    model = lively_dima(spec, *overrides, preset="cpu")
    eager, low = (roll_out(each, spec, batch=16, horizon=2) for each in (model, model.accelerated("bfloat16")))

    first = low.critic_view[:, 1] - eager.critic_view[:, 1]
    assert 0 < first.abs().mean() < 0.05 * eager.critic_view[:, 1].std()
    assert all(tensor.dtype != torch.bfloat16 for _, tensor in low.tensors())
    assert torch.isfinite(low.reward).all()


def test_asked_anew_after_training_it_has_the_new_weights() -> None:
    spec = make_spec()
    model = lively_dima(spec)
    before = roll_out(model.accelerated(), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)

    after = roll_out(model.accelerated(), spec)

    assert not torch.allclose(before.reward, after.reward)
    assert_alike(after, roll_out(model, spec))


def test_a_rollout_made_fast_can_be_learned_from() -> None:
    """What comes out are ordinary tensors: an optimiser may keep them for its gradient."""
    spec = make_spec()
    model = lively_dima(spec)
    behaviour = compose_group(["+policy=mappo", "policy.num_rollouts=6", "policy.horizon=3"], "policy")
    torch.manual_seed(0)
    mappo = behaviour.build(spec, model)
    generator = torch.Generator().manual_seed(0)
    context = random_segment(spec, 6, model.context_length, generator)

    metrics = mappo.update(imagine(model.accelerated(), mappo.policy, context, 3, generator), generator)

    assert torch.isfinite(metrics["policy/loss"])


@given(
    kind=st.sampled_from(["same", "down", "up"]),
    length=st.sampled_from([1, 2, 4, 6, 8]),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_a_packed_convolution_is_the_convolution(kind: Any, length: int, widths: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    conv = ShortConv(*widths, length, kind)
    x = torch.randn(3, widths[0], length)

    with torch.no_grad():
        expected = conv.conv(x)  # torch's own convolution
        packed = PackedConv(conv, torch.float32)
        rows = x.transpose(1, 2).flatten(1)
        got = packed(rows)
        added = packed.add_to(torch.ones_like(got), rows)

    def as_rows(y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(1)

    torch.testing.assert_close(got, as_rows(expected), rtol=1e-5, atol=1e-5)
    no_bias = as_rows(expected - conv.conv.bias[:, None])  # type: ignore[index]
    torch.testing.assert_close(added, 1 + no_bias, rtol=1e-5, atol=1e-5)


def test_a_step_does_not_disturb_an_older_state() -> None:
    """Two branches from one state: the first one's step writes behind the second one's memory, not into it."""
    spec = make_spec()
    fast = lively_dima(spec).accelerated()
    assert isinstance(fast, DimaWorldModel)
    generator = torch.Generator().manual_seed(1)
    state = fast.start(random_segment(spec, 4, fast.context_length, generator), generator=generator)
    state, _ = fast.step(state, random_action(spec, 4, generator), generator=generator)
    one, other = (random_action(spec, 4, generator) for _ in range(2))

    def reward_after(first: Tensor, second: Tensor | None) -> Tensor:
        after, prediction = fast.step(state, first, generator=torch.Generator().manual_seed(2))
        if second is None:
            return prediction.reward
        fast.step(state, second, generator=torch.Generator().manual_seed(3))
        return fast.step(after, one, generator=torch.Generator().manual_seed(4))[1].reward

    alone = fast.step(
        fast.step(state, one, generator=torch.Generator().manual_seed(2))[0],
        one,
        generator=torch.Generator().manual_seed(4),
    )[1].reward
    assert torch.equal(reward_after(one, other), alone)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns about itself
def test_compiled_it_is_the_same_within_rounding() -> None:
    """Twice, as after a round of training: the second packing must not be compiled anew, and must be heard."""
    spec = make_spec()
    model = lively_dima(spec)
    assert_alike(roll_out(model.accelerated(compiled=True), spec), roll_out(model, spec))
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled > 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)

    assert_alike(roll_out(model.accelerated(compiled=True), spec), roll_out(model, spec))

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
