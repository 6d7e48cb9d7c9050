"""Action encoders: what is hidden stays hidden to the bit, what is visible counts, and who acted can be told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dima.conditioning import (
    ActionEncoder,
    ActionEncoderKind,
    PerceiverActionEncoder,
    SmallActionEncoder,
    build_action_encoder,
)
from worldmodel.contract.random_data import stir

KINDS: tuple[ActionEncoderKind, ...] = ("small", "perceiver")
BATCH, AGENTS, ACTION_DIM, PAST, DIM = 4, 3, 2, 2, 16


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> ActionEncoder:
    torch.manual_seed(0)
    module = build_action_encoder(request.param, AGENTS, ACTION_DIM, PAST, DIM)
    stir(module)
    return module


@pytest.fixture
def past() -> Tensor:
    return torch.rand(BATCH, PAST, AGENTS, ACTION_DIM) * 2 - 1


@pytest.fixture
def action() -> Tensor:
    return torch.rand(BATCH, AGENTS, ACTION_DIM) * 2 - 1


def every_mask() -> Tensor:
    """[8,1,3]: every subset of three agents."""
    return torch.cartesian_prod(*[torch.tensor([False, True])] * AGENTS)[:, None]


@torch.no_grad()
def embed(encoder: ActionEncoder, past: Tensor, action: Tensor, visible: Tensor) -> Tensor:
    return encoder.pool(encoder.tokens(past, action), visible)


@pytest.mark.parametrize("agent", range(AGENTS))
@pytest.mark.parametrize("size", [0.7, 1e9])
def test_a_hidden_action_changes_no_bit_and_a_visible_one_does(
    encoder: ActionEncoder, past: Tensor, action: Tensor, agent: int, size: float
) -> None:
    masks = every_mask()
    other = action.clone()
    other[:, agent] = -size * other[:, agent]

    before, after = embed(encoder, past, action, masks), embed(encoder, past, other, masks)

    assert torch.isfinite(after).all()
    sees = masks[:, 0, agent]
    assert torch.equal(before[~sees], after[~sees])
    assert (before[sees] != after[sees]).any(dim=-1).all()


def test_past_actions_are_seen_by_every_mask(encoder: ActionEncoder, past: Tensor, action: Tensor) -> None:
    masks = every_mask()[[0, -1]]
    before = embed(encoder, past, action, masks)
    for step in range(PAST):
        for agent in range(AGENTS):
            other = past.clone()
            other[:, step, agent] *= -0.5
            assert (before != embed(encoder, other, action, masks)).any(dim=-1).all(), (step, agent)


def test_it_matters_who_acts(encoder: ActionEncoder, past: Tensor, action: Tensor) -> None:
    everyone = torch.ones(1, 1, AGENTS, dtype=torch.bool)
    swapped = action[:, [1, 0, 2]]
    first, second = (torch.eye(AGENTS, dtype=torch.bool)[None, None, i] for i in (0, 1))

    assert (embed(encoder, past, action, everyone) != embed(encoder, past, swapped, everyone)).any(dim=-1).all()
    # The same numbers, seen alone, from one agent or the other.
    assert (embed(encoder, past, action, first) != embed(encoder, past, swapped, second)).any(dim=-1).all()


def test_being_hidden_is_not_acting_with_zeros(encoder: ActionEncoder, past: Tensor) -> None:
    idle = torch.zeros(BATCH, AGENTS, ACTION_DIM)
    embedded = embed(encoder, past, idle, every_mask())

    for i in range(len(embedded)):
        for j in range(i):
            assert (embedded[i] != embedded[j]).any(dim=-1).all(), (i, j)


def test_rows_do_not_see_each_other(encoder: ActionEncoder, past: Tensor, action: Tensor) -> None:
    before = embed(encoder, past, action, every_mask())
    past[1:], action[1:] = -past[1:], -action[1:]

    after = embed(encoder, past, action, every_mask())

    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_one_mask_for_all_rows_is_the_same_as_one_a_row(encoder: ActionEncoder, past: Tensor, action: Tensor) -> None:
    masks = every_mask()

    shared, own = (embed(encoder, past, action, m) for m in (masks, masks.expand(-1, BATCH, -1)))

    torch.testing.assert_close(shared, own)


def test_small_encoder_is_a_masked_sum_of_agents_then_an_mlp(past: Tensor, action: Tensor) -> None:
    encoder = SmallActionEncoder(AGENTS, ACTION_DIM, PAST, DIM)
    masks = torch.rand(5, BATCH, AGENTS) < 0.5
    embedded = embed(encoder, past, action, masks)

    for level in range(5):
        for row in range(BATCH):
            total = encoder.past.weight @ past[row].flatten() + encoder.past.bias
            for agent in range(AGENTS):
                if masks[level, row, agent]:
                    total = total + action[row, agent] @ encoder.agent_weight[agent] + encoder.agent_bias[agent]
            expected = encoder.out(nn.functional.silu(encoder.hidden(nn.functional.silu(total))))
            torch.testing.assert_close(embedded[level, row], expected)


def test_perceiver_treats_hidden_tokens_as_absent(past: Tensor, action: Tensor) -> None:
    encoder = PerceiverActionEncoder(AGENTS, ACTION_DIM, PAST, DIM)
    always, by_agent = encoder.tokens(past, action)
    for mask in every_mask():
        kept = by_agent[:, mask[0]]

        removed = encoder.pool((always, kept), torch.ones(1, 1, kept.shape[1], dtype=torch.bool))

        torch.testing.assert_close(encoder.pool((always, by_agent), mask[None]), removed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("agents", "action_dim", "size"), [(2, 3, 11_874_752), (4, 2, 11_875_008)])
def test_perceiver_has_the_published_size(agents: int, action_dim: int, size: int) -> None:
    encoder = build_action_encoder("perceiver", agents, action_dim, 2, 256)

    assert sum(parameter.numel() for parameter in encoder.parameters()) == size


def test_small_encoder_works_without_past_actions(action: Tensor) -> None:
    encoder = SmallActionEncoder(AGENTS, ACTION_DIM, 0, DIM)

    assert embed(encoder, torch.zeros(BATCH, 0, AGENTS, ACTION_DIM), action, every_mask()).shape == (8, BATCH, DIM)


def test_every_parameter_learns(encoder: ActionEncoder, past: Tensor, action: Tensor) -> None:
    encoder.zero_grad()
    encoder.pool(encoder.tokens(past, action), every_mask()).square().sum().backward()

    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
