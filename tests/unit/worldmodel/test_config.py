"""Configs within configs: a dict changes single values of a default, and is checked like any other config."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from worldmodel.config import Config, ConfigError, OptimConfig


@dataclasses.dataclass(frozen=True)
class Net(Config):
    width: int = 8
    optim: OptimConfig = OptimConfig(1.0, 0.0, 1.0, 1)  # noqa: RUF009


@dataclasses.dataclass(frozen=True)
class Model(Config):
    needed: OptimConfig
    net: Net = Net(16, OptimConfig(1e-3, 0.1, 10.0, 64))  # noqa: RUF009
    either: OptimConfig | None = None
    anything: Any = dataclasses.field(default_factory=Net)
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)


NEEDED = OptimConfig(1.0, 0.0, 1.0, 1)


def model(**values: Any) -> Model:
    return Model(**{"needed": NEEDED, **values})


def test_a_dict_changes_single_values_of_the_outer_default() -> None:
    changed = model(net={"optim": {"learning_rate": 1}})
    assert changed.net == Net(16, OptimConfig(1.0, 0.1, 10.0, 64))
    assert isinstance(changed.net.optim.learning_rate, float)
    assert model(anything={"width": 3}).anything == Net(3)


def test_without_a_default_all_that_has_none_must_be_given() -> None:
    given = {"learning_rate": 0.5, "weight_decay": 0.0, "grad_clip": 1.0, "batch_size": 2}
    assert Model(needed=given).needed == OptimConfig(0.5, 0.0, 1.0, 2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Model.needed: grad_clip, batch_size must be given too"):
        Model(needed={"learning_rate": 0.5, "weight_decay": 0.0})  # type: ignore[arg-type]


def test_a_dict_stays_one_where_a_dict_is_declared() -> None:
    assert model(numbers={"width": 3}).numbers == {"width": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"net": {"widht": 3}}, "Model.net: unknown key 'widht' (keys: width, optim)"),
        ({"net": {"optim": {"rate": 3}}}, "Model.net.optim: unknown key 'rate'"),
        ({"net": {"width": "wide"}}, "Net.width = 'wide' (str): expected int"),
        ({"net": {"optim": {"learning_rate": 0}}}, "OptimConfig.learning_rate = 0.0: expected a number above 0"),
        ({"either": {"learning_rate": 1}}, "Model.either = {'learning_rate': 1} (dict): expected OptimConfig or null"),
    ],
)
def test_what_is_nested_is_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        model(**values)
