"""The conditional U-Net: any length of state, padding and skips where they belong, and the paper's size."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.support.inference_models import inference_config
from worldmodel.contract.random_data import stir
from worldmodel.inference.unet import ConditionalUnet1d, GroupNorm, StepEmbedding
from worldmodel.types import EnvSpec

PARTIAL_HALFCHEETAH = EnvSpec("partial", 2, 17, (11, 3), (3, 3), 1000, appends_agent_id=True)


def lively(state_dim: int, channels: tuple[int, ...] = (8, 16, 24), num_blocks: int = 1) -> ConditionalUnet1d:
    torch.manual_seed(0)
    unet = ConditionalUnet1d(state_dim, 6, channels, num_blocks, cond_dim=12, groups=8)
    stir(unet)
    return unet


def inputs(state_dim: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(state_dim)
    return torch.randn(rows, state_dim, generator=g), torch.arange(rows) % 5, torch.randn(rows, 6, generator=g)


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_any_state_size_any_depth_and_a_single_row(state_dim: int, levels: int, num_blocks: int, rows: int) -> None:
    # In double precision: norms of few numbers that are nearly equal magnify rounding.
    unet = lively(state_dim, (8,) * levels, num_blocks).double()
    noisy, step, y = (t.double() if t.is_floating_point() else t for t in inputs(state_dim, rows))
    out = unet(noisy, step, unet.embed_condition(y))
    assert out.shape == (rows, state_dim)
    assert torch.isfinite(out).all()
    alone = unet(noisy[:1], step[:1], unet.embed_condition(y[:1]))
    torch.testing.assert_close(alone, out[:1])


@settings(max_examples=10)
@given(st.integers(1, 40))
def test_padding_is_zeros_behind_the_state_and_is_cut_off_again(state_dim: int) -> None:
    unet = lively(state_dim)
    whole = -state_dim % 4 + state_dim
    longer = lively(whole)
    noisy, step, y = inputs(state_dim, 3)
    assert unet.padding == whole - state_dim
    assert longer.padding == 0
    padded = functional.pad(noisy, (0, whole - state_dim))
    expected = longer(padded, step, longer.embed_condition(y))[:, :state_dim]
    torch.testing.assert_close(unet(noisy, step, unet.embed_condition(y)), expected)


def mish(x: Tensor) -> Tensor:
    return x * functional.softplus(x).tanh()


def reference_block(weights: dict[str, Tensor], name: str, x: Tensor, condition: Tensor) -> Tensor:
    def conv_block(part: str, x: Tensor) -> Tensor:
        get = {key: weights[f"{name}.{part}.{key}"] for key in ("0.weight", "0.bias", "1.weight", "1.bias")}
        x = functional.conv1d(x, get["0.weight"], get["0.bias"], padding=2)
        grouped = x.reshape(x.shape[0], 8, -1)
        mean, var = grouped.mean(dim=2, keepdim=True), grouped.var(dim=2, keepdim=True, correction=0)
        x = ((grouped - mean) / (var + 1e-5).sqrt()).reshape(x.shape)
        return mish(x * get["1.weight"][:, None] + get["1.bias"][:, None])

    added = mish(condition) @ weights[f"{name}.condition.1.weight"].t() + weights[f"{name}.condition.1.bias"]
    h = conv_block("second", conv_block("first", x) + added[:, :, None])
    if f"{name}.residual.weight" in weights:
        x = functional.conv1d(x, weights[f"{name}.residual.weight"], weights[f"{name}.residual.bias"])
    return h + x


def test_the_network_is_the_one_that_is_described() -> None:
    """Two levels, written down operation by operation."""
    unet = lively(6, (8, 16))
    w: dict[str, Tensor] = {name.replace(".conv.", "."): parameter for name, parameter in unet.named_parameters()}
    noisy, step, y = inputs(6, 3)
    angle = step[:, None] * torch.tensor([10000.0 ** (-i / 5) for i in range(6)])
    sinusoids = torch.cat([angle.sin(), angle.cos()], dim=1)

    def two_layers(name: str, x: Tensor, first: int) -> Tensor:
        hidden = mish(x @ w[f"{name}.{first}.weight"].t() + w[f"{name}.{first}.bias"])
        return hidden @ w[f"{name}.{first + 2}.weight"].t() + w[f"{name}.{first + 2}.bias"]

    condition = two_layers("embed", y, 0) + two_layers("step_embedding", sinusoids, 1)
    top = reference_block(w, "down.0.0", noisy[:, None], condition)
    low = functional.conv1d(top, w["shrink.0.weight"], w["shrink.0.bias"], stride=2, padding=1)
    low = reference_block(w, "down.1.0", low, condition)
    middle = reference_block(w, "middle.0", low, condition)
    raised = reference_block(w, "up.0.0", torch.cat([middle, low], dim=1), condition)
    raised = functional.conv_transpose1d(raised, w["grow.0.weight"], w["grow.0.bias"], stride=2, padding=1)
    out = functional.conv1d(raised, w["out.0.0.weight"], w["out.0.0.bias"], padding=2)
    grouped = out.reshape(3, 8, -1)
    grouped = functional.layer_norm(grouped, grouped.shape[2:]).reshape(out.shape)
    out = mish(grouped * w["out.0.1.weight"][:, None] + w["out.0.1.bias"][:, None])
    out = functional.conv1d(out, w["out.1.weight"], w["out.1.bias"])[:, 0]
    torch.testing.assert_close(unet(noisy, step, unet.embed_condition(y)), out, rtol=1e-4, atol=1e-5)


def test_group_norm_and_its_gradients_are_pytorchs() -> None:
    norm, pytorch = GroupNorm(4, 8), nn.GroupNorm(4, 8)
    stir(norm)
    pytorch.load_state_dict(norm.state_dict())
    x = torch.randn(3, 8, 5, requires_grad=True)
    weights = torch.randn(3, 8, 5)

    def result(each: nn.GroupNorm) -> tuple[Tensor, ...]:
        y = each(x)
        return (y, *torch.autograd.grad((y * weights).sum(), [x, each.weight, each.bias]))

    torch.testing.assert_close(result(norm), result(pytorch), rtol=1e-4, atol=1e-5)


def test_steps_are_told_apart() -> None:
    embedded = StepEmbedding(8)(torch.arange(5))
    assert embedded.shape == (5, 8)
    assert torch.cdist(embedded, embedded)[~torch.eye(5, dtype=torch.bool)].min() > 0.1


def test_every_parameter_learns() -> None:
    unet = lively(9)
    noisy, step, y = inputs(9, 4)
    unet(noisy, step, unet.embed_condition(y)).square().sum().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_papers_configuration_has_12_to_14_million_parameters() -> None:
    inference: nn.Module = inference_config("globediff", preset=None).build(PARTIAL_HALFCHEETAH)
    assert sum(p.numel() for p in inference.parameters()) == 13_723_297
