"""The linear path around the U-Net: its arithmetic, what it may depend on, and what it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dima.bypass import MEAN_SCALE
from dima.denoiser import Denoiser
from tests.support.dima_models import dima_config, lively_dima, make_spec
from worldmodel.contract.random_data import random_action
from worldmodel.types import EnvSpec

SPEC = make_spec(num_agents=3)
SIGMAS = torch.tensor([5.0, 0.8, 0.1, 0.002])
VISIBLE = torch.tensor([[True, True, True], [False, True, False], [True, False, True], [False, False, False]])


def bypassed(*overrides: str, spec: EnvSpec = SPEC) -> Denoiser:
    return lively_dima(spec, "denoiser.bypass=linear", *overrides).denoiser


def by_hand(model: Denoiser, level: int, x: Tensor, context: Tensor, action: Tensor) -> Tensor:
    """The bypass's output [B,S] at one noise level, one row and dimension at a time, agent by agent."""
    bypass = model.bypass
    assert bypass is not None
    s = float((SIGMAS[level].double() ** 2 + model.sigma_offset_noise**2).sqrt())
    skip = 0.25 / (s**2 + 0.25)
    c_out = s * 0.5 / (s**2 + 0.25) ** 0.5
    gains = bypass.gains(model.noise_features(torch.tensor(s).log() / 4))
    output = torch.zeros_like(x)
    for row in range(x.shape[0]):
        for dim in range(SPEC.state_dim):
            mean = bypass.state.bias[dim] + (bypass.state.weight[dim] * context[row, -1] * 2).sum()
            for agent in range(SPEC.num_agents):
                if VISIBLE[level, agent]:
                    mean = mean + (action[row, agent] * bypass.agent_weight[agent, :, dim]).sum()
            gain_mean = gains[SPEC.state_dim + dim] + (1 - skip) / c_out
            output[row, dim] = gains[dim] * x[row, dim] + MEAN_SCALE * gain_mean * mean
    return output


@pytest.mark.parametrize("overrides", [(), ("sigma_offset_noise=0.3", "denoiser.scale_context=true")], ids=" ".join)
def test_the_network_is_the_u_net_plus_a_loop_over_dimensions_and_agents(overrides: tuple[str, ...]) -> None:
    model = bypassed(*overrides)
    g = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, SPEC.state_dim, generator=g), torch.randn(2, 3, SPEC.state_dim, generator=g)
    past, action = random_action(SPEC, 4, g).unflatten(0, (2, 2)), random_action(SPEC, 2, g)
    with torch.no_grad():
        modulation = model.modulation(SIGMAS[:, None], past, action, VISIBLE[:, None])
        outputs = [model.network(x, context, one) for one in modulation]
        expected = [by_hand(model, level, x, context, action) for level in range(len(SIGMAS))]
        bypass, model.bypass = model.bypass, None
        alone = model.modulation(SIGMAS[:, None], past, action, VISIBLE[:, None])
        rest = [model.network(x, context, one) for one in alone]
        model.bypass = bypass

    difference = torch.stack(outputs) - torch.stack(rest)
    torch.testing.assert_close(difference, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_a_mask_may_serve_several_noise_levels() -> None:
    model = bypassed()
    g = torch.Generator().manual_seed(0)
    past, action = random_action(SPEC, 4, g).unflatten(0, (2, 2)), random_action(SPEC, 2, g)
    level = torch.tensor([0, 0, 1, 1])

    shared = model.modulation(SIGMAS[:, None], past, action, VISIBLE[:2, None], level)

    each = model.modulation(SIGMAS[:, None], past, action, VISIBLE[:2][level][:, None])
    torch.testing.assert_close(shared, each)


def test_a_fresh_bypass_changes_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, SPEC.state_dim, generator=g), torch.randn(2, 3, SPEC.state_dim, generator=g)
    past, action = random_action(SPEC, 4, g).unflatten(0, (2, 2)), random_action(SPEC, 2, g)
    outputs = []
    for kind in ("none", "linear"):
        torch.manual_seed(0)
        model = dima_config(f"denoiser.bypass={kind}").build(SPEC).denoiser
        stirred = torch.Generator().manual_seed(1)  # a fresh U-Net's last layer is zero: nothing of it could be seen
        model.conv_out.conv.weight.data.normal_(generator=stirred)
        modulation = model.modulation(SIGMAS[:1, None], past, action, VISIBLE[:1, None])[0]
        outputs.append(model.network(x, context, modulation))

    assert outputs[0].std() > 0.1
    assert torch.equal(*outputs)


@pytest.mark.parametrize("preset", ["paper", "published"])
def test_it_adds_its_own_weights_and_the_paper_s_presets_do_without(preset: str) -> None:
    def count(*overrides: str) -> int:
        return sum(p.numel() for p in dima_config(*overrides, preset=preset).build(SPEC).denoiser.parameters())

    size, noise_dim = SPEC.state_dim, 256
    added = size * size + size + SPEC.num_agents * SPEC.action_dim * size + 2 * size * (noise_dim + 1)
    assert count() == count("denoiser.bypass=none")
    assert count("denoiser.bypass=linear") == count() + added


def test_with_it_a_narrow_network_frees_every_dimension_of_noise() -> None:
    """The last convolution reads two positions of four channels: eight directions. The bypass adds the others."""
    spec = make_spec(state_dim=32)
    g = torch.Generator().manual_seed(0)
    past, action = random_action(spec, 64, g).unflatten(0, (32, 2)), random_action(spec, 32, g)
    visible = torch.ones(1, 1, spec.num_agents, dtype=torch.bool)

    def rank(kind: str) -> int:
        model = lively_dima(spec, f"denoiser.bypass={kind}", "denoiser.channels=[4]", "denoiser.depths=[1]").denoiser
        with torch.no_grad():
            modulation = model.modulation(SIGMAS[1:2, None], past[:1], action[:1], visible)[0].expand(32, -1)
            outputs = model.network(torch.eye(32), torch.zeros(32, 3, 32), modulation)
        return int(torch.linalg.matrix_rank(outputs - outputs.mean(dim=0)))

    assert rank("none") <= 8
    assert rank("linear") == 31
