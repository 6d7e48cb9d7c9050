"""`dima check-model` passes what keeps the contract and explains each way of breaking it in its author's words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.broken_world_models import (
    BROKEN,
    CountsItsSteps,
    IgnoresTheGenerator,
    NormalizesOverTheBatch,
    PeeksAtTheState,
    RewardOfWrongShape,
    WritesIntoTheCarry,
)
from tests.contracts.sound_world_model import SoundModel
from tests.contracts.test_world_models import UNEQUAL
from tests.support.commands import dima
from worldmodel.contract.checks import CHECKS
from worldmodel.contract.findings import broken_checks
from worldmodel.contract.subject import Subject

LINEAR = "world_model._target_=examples.custom_world_model.linear.LinearConfig"

SIX = (
    RewardOfWrongShape,
    CountsItsSteps,
    NormalizesOverTheBatch,
    IgnoresTheGenerator,
    WritesIntoTheCarry,
    PeeksAtTheState,
)


class Raises(SoundModel):
    def step(self, state, action, *, generator):  # type: ignore[no-untyped-def]
        raise KeyError("no such key")


def test_a_model_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    outcome = dima("check-model", LINEAR, "env=toy/linear", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert f"{len(CHECKS)} of {len(CHECKS)} checks passed" in outcome.stdout
    assert "LinearConfig keeps the contract" in outcome.stdout


def test_a_known_law_passes_and_it_is_said_what_was_not_asked(tmp_path: Path) -> None:
    oracle = ("world_model._target_=envs.toy.oracle.OracleConfig", "+world_model.system=${env}")
    outcome = dima("check-model", *oracle, "env=toy/linear", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert "checks passed; the model has no parameters: nothing was asked of its training" in outcome.stdout


def test_a_broken_one_is_told_what_why_and_what_to_try(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import dataclasses\n"
        "from tests.contracts.broken_world_models import CountsItsSteps\n"
        "from worldmodel.config import Config\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Counting(Config):\n"
        "    def build(self, spec):\n"
        "        return CountsItsSteps(spec)\n"
    )
    words = ("world_model._target_=mine.Counting", "checks=[shapes,nothing_hidden]")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    command = [sys.executable, "-m", "dima.run.cli", "check-model", *words]
    outcome = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2, outcome.stdout
    assert "Counting does not keep the contract in nothing_hidden" in outcome.stderr
    assert re.search(r"nothing_hidden \(in all three tasks\): .* is another after other calls", outcome.stdout)
    for heading in ("asked", "why", "try"):
        assert outcome.stdout.count(f"\n  {heading}") == 1


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    outcome = dima("check-model", LINEAR, "checks=[shape]", cwd=tmp_path)
    assert outcome.code == 2
    assert "checks = ('shape',): expected null or some of shapes, inputs_untouched" in outcome.stderr


def test_help_explains_the_options_and_names_the_checks(tmp_path: Path) -> None:
    shown = dima("check-model", "--help", cwd=tmp_path).stdout
    for option in ("checks=[NAME,..]", "stochastic=false", "dead_parameters=[NAME,..]"):
        assert option in shown
    listed = shown.split("these checks alone, of ")[1].split("stochastic=")[0]
    assert re.findall(r"\w+", listed) == list(CHECKS)


@pytest.mark.parametrize("broken", SIX, ids=lambda broken: broken.__name__)
def test_each_way_of_breaking_it_is_among_the_findings(broken: type[SoundModel]) -> None:
    check, message = BROKEN[broken]
    findings = {finding.check: finding for finding in broken_checks(Subject(lambda: broken(UNEQUAL), UNEQUAL), [check])}
    assert re.search(message, findings[check].problem)
    assert CHECKS[check].cure in str(findings[check])


def test_a_model_that_raises_is_a_finding_with_the_line_of_its_own_code() -> None:
    (finding,) = broken_checks(Subject(lambda: Raises(UNEQUAL), UNEQUAL), ["shapes"])
    assert finding.problem == "KeyError: 'no such key'"
    assert re.fullmatch(r'test_check_model.py, line \d+: raise KeyError\("no such key"\)', finding.place or "")
    assert CHECKS["shapes"].cure not in str(finding)


def test_every_check_says_what_it_asks_why_and_what_to_try() -> None:
    for check in CHECKS.values():
        assert check.asks.endswith(".")
        assert check.why
        assert check.cure
