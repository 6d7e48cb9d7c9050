"""The denoiser: EDM's factors, what it may depend on, and what its training loss is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.denoiser import Denoiser, preconditioners
from dima.schedule import draw_training_sigmas
from tests.support.dima_models import dima_config, lively_dima, make_spec
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_action, random_segment
from worldmodel.short_convolution import ShortConv
from worldmodel.types import EnvSpec, Segment

SPEC = make_spec()
LEVELS = torch.tensor([5.0, 0.84475, 0.07744, 0.002])
TABLES = {
    0.0: [
        [0.19901, 0.00990, 0.49752, 0.40236],
        [1.01871, 0.25944, 0.43028, -0.04218],
        [1.97644, 0.97657, 0.07653, -0.63957],
        [1.99998, 0.99998, 0.00200, -1.55365],
    ],
    0.3: [
        [0.19865, 0.00987, 0.49753, 0.40281],
        [0.97423, 0.23728, 0.43667, -0.02733],
        [1.70006, 0.72255, 0.26337, -0.29293],
        [1.71498, 0.73529, 0.25725, -0.30099],
    ],
}
"""c_in, c_skip, c_out and c_noise at LEVELS for sigma_data 0.5, by offset noise."""


@dataclasses.dataclass
class Inputs:
    """What one call of D takes, for every noise level of LEVELS at once."""

    x: Tensor
    context: Tensor
    past: Tensor
    action: Tensor
    visible: Tensor


@pytest.fixture(
    params=["action_encoder=small", "action_encoder=perceiver", "denoiser.bypass=linear"],
    ids=["small", "perceiver", "bypass"],
    scope="module",
)
def denoiser(request: pytest.FixtureRequest) -> Denoiser:
    return lively_dima(SPEC, request.param).denoiser


@pytest.fixture
def inputs() -> Inputs:
    return make_inputs()


def make_inputs(batch: int = 3, seed: int = 0) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    return Inputs(
        x=torch.randn(batch, SPEC.state_dim, generator=g),
        context=torch.randn(batch, 3, SPEC.state_dim, generator=g) / 2,
        past=random_action(SPEC, 2 * batch, g).unflatten(0, (batch, 2)),
        action=random_action(SPEC, batch, g),
        visible=torch.tensor([[True, False], [False, True], [True, True], [False, False]])[:, None],
    )


@torch.no_grad()
def denoise(denoiser: Denoiser, inputs: Inputs) -> Tensor:
    """D at LEVELS, [J,B,S]."""
    modulation = denoiser.modulation(LEVELS[:, None], inputs.past, inputs.action, inputs.visible)
    levels = range(len(LEVELS))
    return torch.stack([denoiser.denoise(inputs.x, LEVELS[j], inputs.context, modulation[j]) for j in levels])


@pytest.mark.parametrize("offset", TABLES)
def test_factors(offset: float) -> None:
    factors = torch.stack(preconditioners(LEVELS, 0.5, offset), dim=1)

    torch.testing.assert_close(factors, torch.tensor(TABLES[offset]), rtol=0, atol=1e-4)


def test_at_no_noise_the_input_comes_back() -> None:
    model = lively_dima(SPEC, "sigma_offset_noise=0.0").denoiser
    inputs = make_inputs()
    sigma = torch.tensor(1e-6)
    modulation = model.modulation(sigma[None, None], inputs.past, inputs.action, inputs.visible[:1])[0]

    assert model.network(inputs.x, inputs.context, modulation).abs().max() > 0.1
    torch.testing.assert_close(model.denoise(inputs.x, sigma, inputs.context, modulation), inputs.x, rtol=0, atol=1e-4)


def test_with_offset_noise_the_input_never_comes_back() -> None:
    """The factors stay at noise 0.3, whatever sigma is: c_skip is 0.735, not 1."""
    model = dima_config("sigma_offset_noise=0.3").build(SPEC).denoiser
    assert model.conv_out.conv.bias is not None
    torch.nn.init.zeros_(model.conv_out.conv.bias)
    inputs = make_inputs()

    torch.testing.assert_close(denoise(model, inputs)[-1], 0.73529 * inputs.x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offset", TABLES)
def test_a_fresh_network_gives_zero_so_that_d_is_c_skip_x(offset: float) -> None:
    model = dima_config(f"sigma_offset_noise={offset}").build(SPEC).denoiser
    assert model.conv_out.conv.bias is not None
    torch.nn.init.zeros_(model.conv_out.conv.bias)  # the weight starts at zero by design, the bias does not
    inputs = make_inputs()
    c_skip = torch.tensor(TABLES[offset])[:, 1, None, None]

    torch.testing.assert_close(denoise(model, inputs), c_skip * inputs.x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("offset", TABLES)
def test_the_loss_is_edms_weight_on_the_error_of_d(offset: float) -> None:
    model = lively_dima(SPEC, f"sigma_offset_noise={offset}").denoiser
    inputs = make_inputs()
    target = torch.randn_like(inputs.x)
    effective = (LEVELS**2 + offset**2).sqrt()
    weight = (effective**2 + 0.25) / (effective * 0.5) ** 2  # lambda of EDM's Table 1

    for level, sigma in enumerate(LEVELS):
        factors = model.precondition(sigma)
        modulation = model.modulation(sigma[None, None], inputs.past, inputs.action, inputs.visible[:1])[0]
        output = model.network(factors.c_in * inputs.x, inputs.context, modulation)
        denoised = model.denoise(inputs.x, sigma, inputs.context, modulation)
        in_f = (output - (target - factors.c_skip * inputs.x) / factors.c_out).square()
        torch.testing.assert_close(in_f, weight[level] * (denoised - target).square(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(("spec", "size"), [(make_spec(17, 2, 3), 14_090_065), (make_spec(105, 4, 2), 14_124_201)])
def test_parity_build_has_the_published_size(spec: EnvSpec, size: int) -> None:
    model = dima_config(preset="published").build(spec)

    assert sum(parameter.numel() for parameter in model.denoiser.parameters()) == size


@pytest.mark.parametrize("state_dim", [1, 17, 27, 105, 111, 376])
def test_any_state_size_runs_unpadded(state_dim: int) -> None:
    spec = make_spec(state_dim)
    model = dima_config(preset="paper").build(spec).denoiser
    segment = random_segment(spec, 2, model.segment_length, torch.Generator().manual_seed(0))

    assert torch.isfinite(model(segment, torch.Generator().manual_seed(1)).loss)
    assert model.conv_in.conv.weight.shape[1] == state_dim


@pytest.mark.parametrize("agent", [0, 1])
@pytest.mark.parametrize("size", [1.0, 1e9])
def test_a_hidden_action_changes_no_bit_of_d(denoiser: Denoiser, inputs: Inputs, agent: int, size: float) -> None:
    action = inputs.action.clone()
    action[:, agent] = -size * action[:, agent]

    before, after = denoise(denoiser, inputs), denoise(denoiser, dataclasses.replace(inputs, action=action))

    sees = inputs.visible[:, 0, agent]
    assert torch.isfinite(after).all()
    assert torch.equal(before[~sees], after[~sees])
    assert (before[sees] != after[sees]).any(dim=-1).all()


@pytest.mark.parametrize("name", ["x", "context", "past"])
def test_everything_else_changes_d_in_the_own_row_only(denoiser: Denoiser, inputs: Inputs, name: str) -> None:
    changed = getattr(inputs, name).clone()
    changed[1] *= -1

    before, after = denoise(denoiser, inputs), denoise(denoiser, dataclasses.replace(inputs, **{name: changed}))

    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1] != after[:, 1]).any(dim=-1).all()


def test_every_past_state_and_action_counts(denoiser: Denoiser, inputs: Inputs) -> None:
    before = denoise(denoiser, inputs)
    for name in ("context", "past"):
        value = getattr(inputs, name)
        for step in range(value.shape[1]):
            changed = value.clone()
            changed[:, step] *= -1
            after = denoise(denoiser, dataclasses.replace(inputs, **{name: changed}))
            assert (before != after).any(dim=-1).all(), (name, step)


def test_a_noise_level_a_row_is_the_same_as_one_for_all(inputs: Inputs) -> None:
    model = lively_dima(SPEC).denoiser
    sigma = LEVELS[:3]
    visible = inputs.visible[0]
    with torch.no_grad():
        modulation = model.modulation(sigma[None], inputs.past, inputs.action, visible[None])[0]
        own = model.denoise(inputs.x, sigma, inputs.context, modulation)
        shared = denoise(model, dataclasses.replace(inputs, visible=visible.expand(4, 1, -1)))

    torch.testing.assert_close(own, torch.stack([shared[i, i] for i in range(3)]))


VALID = torch.tensor(
    [
        [1, 1, 1, 1, 1],  # the middle of an episode
        [0, 0, 1, 1, 1],  # starts with the first target
        [0, 0, 0, 1, 1],  # starts with the second
        [1, 1, 1, 1, 0],  # ends before the last target
        [0, 1, 1, 0, 0],  # a short episode
        [1, 1, 0, 0, 0],  # no target at all
    ],
    dtype=torch.bool,
)
"""Rows of a segment with two transitions of context and three targets."""


def three_targets(*overrides: str) -> Denoiser:
    return lively_dima(SPEC, "denoiser.num_targets=3", *overrides).denoiser


def make_segment(valid: Tensor = VALID) -> Segment:
    return random_segment(SPEC, len(valid), valid.shape[1], torch.Generator().manual_seed(3), valid)


def loss_of(model: Denoiser, segment: Segment, seed: int = 5) -> Tensor:
    return model(segment, torch.Generator().manual_seed(seed)).loss


def loss_row_by_row(model: Denoiser, segment: Segment, *, detach: bool = True, weighted: bool = True) -> Tensor:
    """The loss as the paper's Algorithm 1 words it, one row and one target at a time, through D alone."""
    g = torch.Generator().manual_seed(5)
    norm, target, reveal = model._shared
    batch, size = segment.valid.shape[0], SPEC.state_dim
    state_std = norm.var.sqrt().float()
    change_mean, change_std = target._change_norm.mean.float(), target._change_norm.var.sqrt().float()

    def wanted(before: Tensor, after: Tensor) -> Tensor:
        """What noise is laid on, from states in units of sigma_data."""
        change = (after - before) * 2 * state_std
        return (change - change_mean) / change_std / 2 if target.kind == "change" else after

    def reached(before: Tensor, denoised: Tensor) -> Tensor:
        """The next state, back from that."""
        change = denoised * 2 * change_std + change_mean
        return before + change / state_std / 2 if target.kind == "change" else denoised

    real = segment.state_valid()
    zero = torch.zeros(size)
    states = [
        [0.5 * norm.normalize(segment.state[i, t]) if real[i, t] else zero for t in range(segment.length + 1)]
        for i in range(batch)
    ]
    clean = [list(row) for row in states]
    errors: list[Tensor] = []
    for t in range(2, 5):
        sigma = draw_training_sigmas(batch, g)
        visible = reveal.training_masks(sigma, g)
        noise = torch.randn(batch, size, generator=g)
        for i in range(batch):
            if not segment.valid[i, t]:
                continue
            s = (sigma[i] ** 2 + model.sigma_offset_noise**2).sqrt()
            goal = wanted(states[i][t], clean[i][t + 1])
            noisy = goal + s * noise[i]
            past, action = segment.action[i : i + 1, t - 2 : t], segment.action[i : i + 1, t]
            modulation = model.modulation(sigma[i].reshape(1, 1), past, action, visible[None, i : i + 1])[0]
            context = torch.stack(states[i][t - 2 : t + 1])[None]
            denoised = model.denoise(noisy[None], sigma[i], context, modulation)[0]
            weight = (s**2 + 0.25) / (s * 0.5) ** 2 if weighted else 1.0
            errors.append((weight * (denoised - goal).square()).mean())
            fed_back = reached(states[i][t], denoised)
            states[i][t + 1] = fed_back.detach() if detach else fed_back
    return torch.stack(errors).mean()


@pytest.mark.parametrize(
    ("overrides", "weighted"),
    [
        (["reveal=one"], True),
        (["reveal=cumulative", "sigma_offset_noise=0.3"], True),
        (["reveal=progressive", "denoiser.scale_context=true"], True),
        (["reveal=joint", "target=change"], True),
        (["reveal=cumulative", "denoiser.bypass=linear"], True),
        (["reveal=one", "denoiser.loss=denoised"], False),
    ],
)
def test_the_loss_equals_a_loop_over_rows_and_targets(overrides: list[str], weighted: bool) -> None:
    model, segment = three_targets(*overrides), make_segment()

    expected = loss_row_by_row(model, segment, weighted=weighted)

    torch.testing.assert_close(loss_of(model, segment), expected, rtol=1e-4, atol=1e-5)


def test_the_own_output_is_fed_back_without_gradient() -> None:
    model, segment = three_targets(), make_segment()

    def gradient(loss: Tensor) -> Tensor:
        grads = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([grad.flatten() for grad in grads])

    ours = gradient(loss_of(model, segment))
    cut, whole = (gradient(loss_row_by_row(model, segment, detach=detach)) for detach in (True, False))

    torch.testing.assert_close(ours, cut, rtol=1e-3, atol=1e-4)
    assert (whole - cut).norm() > 0.01 * cut.norm(), "with gradient it would be another one"


def contexts_of(model: Denoiser, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The past states [B,3,S] that the network is shown for each of the three targets."""
    seen: list[Tensor] = []
    network = model.network

    def record(x: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        seen.append(context)
        return network(x, context, modulation)

    monkeypatch.setattr(model, "network", record)
    loss_of(model, segment)
    return seen


def test_contexts_hold_zeros_before_the_start_and_own_output_after_the_first_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, segment = three_targets(), make_segment()
    norm, *_ = model._shared
    clean = 0.5 * norm.normalize(segment.state)

    first, second, third = contexts_of(model, segment, monkeypatch)

    torch.testing.assert_close(first[0], clean[0, :3])
    for context, start in ((first[1], 2), (second[1], 1), (second[2], 2), (third[2], 1), (first[4], 1)):
        assert not context[:start].any(), "padding stays zero"
    # The state in which an episode starts is real, wherever it stands in the context.
    assert torch.equal(first[1, 2], clean[1, 2])
    assert torch.equal(second[1, 1], clean[1, 2])
    assert torch.equal(third[1, 0], clean[1, 2])
    assert torch.equal(second[2, 2], clean[2, 3])
    assert torch.equal(third[2, 1], clean[2, 3])
    # What follows a target is the model's own output, and stays it.
    assert not torch.isclose(second[0, 2], clean[0, 3], atol=1e-3).any()
    assert torch.equal(second[0, 2], third[0, 1])


def test_targets_behind_the_end_count_for_nothing() -> None:
    model, segment = three_targets(), make_segment()
    g = torch.Generator().manual_seed(9)
    beyond = ~segment.valid & (segment.valid.cumsum(1) > 0)
    noise = random_segment(SPEC, len(VALID), VALID.shape[1], g)
    garbage = dataclasses.replace(
        segment,
        state=torch.where(segment.state_valid()[:, :, None], segment.state, noise.state),
        action=torch.where(beyond[:, :, None, None], noise.action, segment.action),
    )

    assert not torch.equal(garbage.action, segment.action)
    assert torch.equal(loss_of(model, segment), loss_of(model, garbage))


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    model, segment = three_targets(), make_segment(torch.zeros(3, 5, dtype=torch.bool))

    loss = loss_of(model, segment)
    loss.backward()

    assert loss == 0.0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    model.zero_grad()


@pytest.mark.parametrize(
    "overrides",
    [[], ["action_encoder=perceiver"], ["reveal=cumulative"], ["reveal=joint"], ["denoiser.bypass=linear"]],
)
def test_every_weight_learns_but_taps_that_see_only_padding(overrides: list[str]) -> None:
    """At length 1 only the middle of a kernel sees data, and of the last convolution only the last output is used."""
    model = lively_dima(SPEC, "denoiser.channels=[8,8,8]", "denoiser.depths=[1,1,1]", *overrides).denoiser
    segment = random_segment(SPEC, 64, model.segment_length, torch.Generator().manual_seed(0))

    loss_of(model, segment).backward()

    convs = {layer.conv.weight: layer for layer in model.modules() if isinstance(layer, ShortConv)}
    dead = 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        alive = parameter.grad != 0
        if parameter in convs:
            expected = live_taps(convs[parameter], last_output_only=name.startswith("conv_out"))
            assert alive.amax(dim=(0, 1)).tolist() == expected, name
            dead += expected.count(False)
        else:
            assert alive.any(), name
    assert dead > 0


def live_taps(layer: ShortConv, last_output_only: bool) -> list[bool]:
    """Which places of the kernel ever meet an input, found by sliding it."""
    kernel, length = layer.conv.weight.shape[-1], layer.in_length
    (stride,), transposed = layer.conv.stride, isinstance(layer.conv, torch.nn.ConvTranspose1d)
    outputs = [layer.out_length - 1] if last_output_only else range(layer.out_length)
    live = [False] * kernel
    for out in outputs:
        for tap in range(kernel):
            numerator = out + 1 - tap if transposed else out * stride - 1 + tap
            place, rest = divmod(numerator, stride) if transposed else (numerator, 0)
            live[tap] |= rest == 0 and 0 <= place < length
    return live


def test_training_draws_from_its_generator_alone() -> None:
    model, segment = three_targets(), make_segment()
    before = torch.get_rng_state()

    first, again, other = (loss_of(model, segment, seed) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("denoiser.context_states=0", "context_states = 0"),
        ("denoiser.num_targets=0", "num_targets = 0"),
        ("denoiser.sigma_clip=[20.0,0.002]", "sigma_clip"),
        ("denoiser.cond_dim=33", "an even number"),
        ("denoiser.cond_dim=0", "at least 2"),
        ("denoiser.channels=[]", "channels = ()"),
        ("denoiser.depths=[1]", "depths = (1,): expected one number of at least 1 for each of 2 levels"),
        # A level alone divides into whole groups; beside a skip it has 100, or 73, channels.
        ("denoiser.channels=[50,50]", "channels = (50, 50): expected multiples of 32"),
        ("denoiser.channels=[33,40]", "channels = (33, 40): expected multiples of 32"),
        ("denoiser.loss=mse", "preconditioned, denoised"),
        ("denoiser.bypass=mlp", "none, linear"),
    ],
)
def test_settings_that_cannot_be_are_refused(override: str, message: str) -> None:
    def root(error: BaseException) -> Any:
        return error if isinstance(error, ConfigError) or error.__cause__ is None else root(error.__cause__)

    with pytest.raises(Exception, match=".") as caught:
        dima_config(override)
    assert isinstance(root(caught.value), ConfigError)
    assert message in str(root(caught.value))
