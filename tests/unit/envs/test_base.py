"""The border check: what an environment returns is refused by name when it breaks the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.base import EnvError, Observed, StepResult, check_observed, check_step
from worldmodel.types import EnvSpec

SPEC = EnvSpec(env_id="test/two", num_agents=2, state_dim=3, obs_sizes=(2, 1), action_sizes=(1, 1), episode_steps=5)


def result(**changes: Any) -> StepResult:
    good = StepResult(np.zeros((2, 2), np.float32), np.zeros(3, np.float32), 1.0, False, False, {})
    return good._replace(**changes)


def test_what_keeps_the_contract_passes_unchanged() -> None:
    good = result(reward=np.float64(2.0), truncated=np.bool_(True))
    assert check_step(SPEC, good, "after step 1") is good


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.zeros((2, 3), np.float32)}, r"obs has shape \[2, 3\]; expected \[N, O\] = \[2, 2\]"),
        ({"state": np.zeros((3, 1), np.float32)}, r"state has shape \[3, 1\]; expected \[S\] = \[3\]"),
        ({"state": np.zeros(3)}, "state has dtype float64; expected float32"),
        ({"obs": [[0.0, 0.0], [0.0, 0.0]]}, r"obs has .* \(list\); expected a NumPy array"),
        ({"state": np.array([0, np.nan, 0], np.float32)}, r"state\[1\] has the value nan; expected a finite number"),
        ({"obs": np.array([[0, 0], [np.inf, 0]], np.float32)}, r"obs\[1, 0\] has the value inf"),
        ({"reward": np.zeros(2)}, r"reward has an array of dtype float64 and shape \[2\]; expected one float"),
        ({"reward": float("nan")}, "reward has the value nan"),
        ({"terminated": 0}, r"terminated has 0 \(int\); expected one bool"),
        ({"truncated": np.array([True])}, "truncated has an array"),
    ],
)
def test_each_breach_is_named_with_got_and_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        check_step(SPEC, result(**changes), "after step 7")
    assert str(caught.value).startswith("environment test/two, after step 7: ")
    assert caught.value.advice


def test_a_reset_is_checked_too() -> None:
    with pytest.raises(EnvError, match=r"after reset\(seed=4\): obs has shape"):
        check_observed(SPEC, Observed(np.zeros(4, np.float32), np.zeros(3, np.float32)), "after reset(seed=4)")
