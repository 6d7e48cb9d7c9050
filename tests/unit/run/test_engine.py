"""Which model a run imagines in."""

from __future__ import annotations

import pytest

from dima.run.engine import EngineConfig, imagination_model
from tests.support.dima_models import lively_dima, make_spec
from tests.support.linear_model import LinearModelConfig
from worldmodel.config import ConfigError


def test_a_model_that_can_is_made_fast_unless_told_otherwise() -> None:
    model = lively_dima(make_spec())

    assert imagination_model(model, EngineConfig()) is not model
    assert imagination_model(model, EngineConfig(imagination="eager")) is model


def test_a_model_that_knows_no_faster_way_is_used_as_it_is() -> None:
    model = LinearModelConfig().build(make_spec())

    assert imagination_model(model, EngineConfig()) is model


def test_bfloat16_counts_only_where_it_is_used() -> None:
    assert EngineConfig(precision="bfloat16").imagines_in_bfloat16
    assert not EngineConfig(imagination="eager", precision="bfloat16").imagines_in_bfloat16
    assert not EngineConfig().imagines_in_bfloat16


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="EngineConfig.precision"):
        EngineConfig(precision="float16")  # type: ignore[arg-type]
