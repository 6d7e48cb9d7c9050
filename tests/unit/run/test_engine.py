"""Which model a run imagines in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dima.run.engine import EngineConfig, Imagination, imagination_model
from tests.support.dima_models import compose_group, lively_dima, make_spec
from tests.support.linear_model import LinearModelConfig
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_segment


def test_a_model_that_can_is_made_fast_unless_told_otherwise() -> None:
    model = lively_dima(make_spec())

    assert imagination_model(model, EngineConfig()) is not model
    assert imagination_model(model, EngineConfig(imagination="eager")) is model


def test_a_model_that_knows_no_faster_way_is_used_as_it_is() -> None:
    model = LinearModelConfig().build(make_spec())

    assert imagination_model(model, EngineConfig()) is model


def test_bfloat16_counts_only_where_it_is_used() -> None:
    assert EngineConfig(precision="bfloat16").imagines_in_bfloat16
    assert not EngineConfig().imagines_in_bfloat16


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="EngineConfig.precision"):
        EngineConfig(precision="float16")  # type: ignore[arg-type]


@pytest.mark.parametrize("ignored", [{"precision": "bfloat16"}, {"capture": "compile"}])
def test_what_would_be_ignored_is_refused(ignored: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="with imagination = 'eager'"):
        EngineConfig(imagination="eager", **ignored)
    with pytest.raises(ConfigError, match=r"LinearModel has no accelerated\(\)"):
        imagination_model(LinearModelConfig().build(make_spec()), EngineConfig(**ignored))


def test_weights_are_taken_when_they_have_changed_and_not_before() -> None:
    spec = make_spec()
    model = lively_dima(spec)
    torch.manual_seed(0)
    policy = compose_group(["+policy=mappo"], "policy").policy.build(spec, model.actor_dim)
    generator = torch.Generator()
    imagination = Imagination(model, policy, 2, generator, EngineConfig())
    context = random_segment(spec, 3, model.context_length, torch.Generator().manual_seed(1))

    def reward() -> torch.Tensor:
        generator.manual_seed(5)
        return imagination.rollout(context).reward

    before = reward()
    with torch.no_grad():
        for parameter in model.reward_termination.transformer.blocks.parameters():
            parameter.mul_(1.5)
    assert torch.equal(reward(), before)  # the copies of the transformer's weights
    imagination.refresh()
    assert not torch.allclose(reward(), before)


def test_a_graph_is_refused_on_a_cpu() -> None:
    model = lively_dima(make_spec())

    with pytest.raises(ConfigError, match=r"CUDA graphs need device=cuda; use engine\.capture=none"):
        Imagination(model, None, 2, torch.Generator(), EngineConfig(capture="graph"))  # type: ignore[arg-type]
