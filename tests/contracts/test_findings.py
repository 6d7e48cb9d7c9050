"""What is told of a model that breaks the contract: each cause once, the likeliest first, in the author's own code."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contracts.broken_parts import HasAnUnusedModule
from tests.contracts.broken_world_models import CountsItsSteps, NeedsTheState, RewardOfWrongShape, WritesIntoTheCarry
from tests.contracts.sound_world_model import SoundModel
from tests.contracts.test_world_models import PAIR, UNEQUAL
from worldmodel.contract.checks import CHECKS
from worldmodel.contract.findings import Finding, broken_checks, summarize
from worldmodel.contract.purity_checks import ignores_actions
from worldmodel.contract.subject import Subject
from worldmodel.types import Prediction


def found(build: Any, *dead: str) -> list[Finding]:
    return list(broken_checks(Subject(lambda: build(UNEQUAL), UNEQUAL, dead_parameters=dead)))


class HasPartsAlone(nn.Module):
    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.parts = SoundModel(spec).parts


class TakesNoGenerator(SoundModel):
    def step(self, state, action):  # type: ignore[no-untyped-def, override]
        raise NotImplementedError


class SaysWhere(SoundModel):
    actor_dim = "many"  # type: ignore[assignment]

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.actor_dim = "many"  # type: ignore[assignment]


class HasALayerAsPart(SoundModel):
    def parts(self) -> Any:
        return {"dynamics": self.dynamics.linear}


def no_build(spec: Any) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (
            HasPartsAlone,
            "HasPartsAlone lacks: update_statistics, start, step, observe, view, context_length, actor_dim",
        ),
        (lambda spec: None, "build(spec) returns a NoneType: expected an nn.Module"),
        (no_build, "KeyError: 'x'"),
        (TakesNoGenerator, "TakesNoGenerator.step cannot be called as step(state, action, generator=..)"),
        (HasALayerAsPart, "part dynamics is a Linear: expected a TrainablePart"),
        (SaysWhere, "SaysWhere.actor_dim = 'many': expected int"),
    ],
)
def test_what_cannot_be_called_is_one_finding(build: Any, problem: str) -> None:
    (finding,) = found(build)

    assert finding.check == "members"
    assert finding.problem.startswith(problem)


def test_an_error_is_told_with_its_place_alone() -> None:
    (finding,) = found(no_build)

    assert (finding.place or "").startswith("test_findings.py, line ")
    assert "asked" not in str(finding)


@pytest.mark.parametrize("dead", ["dynamics.unused", "dynamics.unused.0.weight"])
def test_unknown_dead_parameters_are_refused_with_what_is_near(dead: str) -> None:
    (finding,) = found(SoundModel, dead, "decoder")

    assert finding.problem.startswith(f"dead_parameters: no parameter or module is called {dead}; near them: d")


def test_dead_parameters_may_be_a_whole_module() -> None:
    assert found(HasAnUnusedModule, "dynamics.unused") == []


class PredictsNaN(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, reward=prediction.reward.log())


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        (PredictsNaN, ["finite"]),
        (RewardOfWrongShape, ["shapes"]),
    ],
)
def test_one_fault_fails_one_check(broken: type[SoundModel], checks: list[str]) -> None:
    assert [finding.check for finding in found(broken)] == checks


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        (CountsItsSteps, "nothing_hidden"),
        (WritesIntoTheCarry, "inputs_untouched"),
        (NeedsTheState, "shapes"),
    ],
)
def test_the_cause_comes_before_what_follows_from_it(broken: type[SoundModel], first: str) -> None:
    cause, *others = found(broken)

    assert cause.check == first
    assert cause.may_follow is None
    assert {finding.may_follow for finding in others} == {first}
    assert all(f"(may follow from {first})" in str(finding) for finding in others)


class IgnoresActions(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        return super().step(state, torch.zeros_like(action), generator=generator)


@pytest.mark.parametrize(("model", "ignores"), [(IgnoresActions, True), (SoundModel, False)])
def test_a_model_that_ignores_actions_is_known(model: type[SoundModel], ignores: bool) -> None:
    assert ignores_actions(Subject(lambda: model(PAIR), PAIR)) == ignores


def test_what_may_follow_comes_later() -> None:
    names = list(CHECKS)
    for name, check in CHECKS.items():
        assert all(names.index(cause) < names.index(name) or cause == name for cause in check.may_follow[:1])
        assert set(check.may_follow) <= set(names)


def test_tasks_that_fail_alike_are_told_once() -> None:
    of_sizes = [Finding("shapes", f"reward has shape [{n}]") for n in ("3, 1", "5")]
    raised = [Finding(check, "KeyError: 'x'", "mine.py, line 3: x") for check in ("finite", "indexing")]

    texts = summarize([("a", of_sizes[0]), ("b", of_sizes[1]), ("b", raised[0]), ("b", raised[1])], 2)

    assert len(texts) == 2
    assert texts[0].startswith("shapes (in both tasks): reward has shape [3, 1]\n  asked")
    assert texts[1] == "finite, indexing (in b): KeyError: 'x'\n  at     mine.py, line 3: x"


def test_with_one_task_none_is_named() -> None:
    assert summarize([(PAIR.env_id, Finding("finite", "reward"))], 1)[0].startswith("finite: reward")
