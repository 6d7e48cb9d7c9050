"""A rollout recorded as a CUDA graph against the one that is called."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imagination.captured import CapturedRollout
from imagination.rollout import imagine
from tests.support.dima_models import compose_group, lively_dima, make_spec
from worldmodel.contract.random_data import random_segment

SPEC = make_spec()


def parts(device: str) -> tuple[Any, Any, Any]:
    """A model, a policy and a context on `device`."""
    model = lively_dima(SPEC, "reveal=joint").to(torch.device(device))
    torch.manual_seed(0)
    policy = compose_group(["+policy=mappo"], "policy").policy.build(SPEC, model.actor_dim).to(device)
    context = random_segment(SPEC, 8, model.context_length, torch.Generator().manual_seed(1)).to(device)
    return model, policy, context


def test_a_cpu_is_refused() -> None:
    model, policy, context = parts("cpu")

    with pytest.raises(ValueError, match=r"cannot be recorded as a CUDA graph; use engine\.capture=none"):
        CapturedRollout(model, policy, context, 3, torch.Generator())


@pytest.mark.gpu
def test_a_replay_equals_the_call() -> None:
    model, policy, context = parts("cuda")
    recorded, called = (torch.Generator("cuda").manual_seed(2) for _ in range(2))
    captured = CapturedRollout(model, policy, context, 5, recorded)

    for _ in range(2):  # the generators go on in step
        replayed, expected = captured(context), imagine(model, policy, context, 5, called)
        for (name, got), (_, want) in zip(replayed.tensors(), expected.tensors(), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.gpu
@torch.no_grad()
def test_a_replay_sees_weights_that_changed_in_place() -> None:
    model, policy, context = parts("cuda")
    generator = torch.Generator("cuda").manual_seed(2)
    captured = CapturedRollout(model, policy, context, 5, generator)
    position = generator.get_state()
    before = captured(context)
    for parameter in model.parameters():
        parameter.mul_(1.1)

    generator.set_state(position)
    after = captured(context)
    generator.set_state(position)

    assert not torch.allclose(before.reward, after.reward)
    torch.testing.assert_close(after.reward, imagine(model, policy, context, 5, generator).reward, rtol=1e-4, atol=1e-5)
