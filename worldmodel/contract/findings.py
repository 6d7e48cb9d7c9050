"""Puts a model through the checks, and tells what failed so that its author reads each cause once, likeliest first."""

from __future__ import annotations

import dataclasses
import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import worldmodel.shapes
import worldmodel.types
from worldmodel.contract.checks import CHECKS, FIRST, Check
from worldmodel.contract.subject import BrokenContract, Subject


@dataclasses.dataclass(frozen=True)
class Finding:
    """A point of the contract that a model does not keep."""

    check: str
    problem: str
    place: str | None = None
    """Where in the model's own code an exception arose; None for what a check found wrong."""
    may_follow: str | None = None
    """The check before this one that failed and is likely to have made it fail as well."""

    def __str__(self) -> str:
        """What is wrong, and, where a check said so itself, what was asked, why, and what to do."""
        return describe(self, [self.check], "")

    @property
    def cause(self) -> tuple[str, ...]:
        """The same for findings that are one: an exception of one line of code, or a check's sentence but for numbers.

        Numbers are sizes of the task, as a rule.
        """
        kind = self.problem.partition(":")[0]
        number = r"-?\d+(\.\d+)?(e-?\d+)?"
        return (kind, self.place) if self.place else (self.check, re.sub(f"{number}(, {number})*", "#", self.problem))


def describe(finding: Finding, checks: Sequence[str], tasks: str) -> str:
    """A finding that the `checks` share; `tasks` says in which it is there, where that is worth saying."""
    mark = f"  (may follow from {finding.may_follow})" if finding.may_follow else ""
    head = f"{', '.join(checks)}{f' ({tasks})' if tasks else ''}: {finding.problem}"
    if finding.place:
        head += f"\n  at     {finding.place}"
        return f"{head}\n{mark}" if mark else head
    check = FIRST if finding.check == FIRST.name else CHECKS[finding.check]
    if finding.may_follow:
        return f"{head}\n{mark}"
    return f"{head}\n  asked  {check.asks}\n  why    {check.why}\n  try    {check.cure}"


def broken_checks(subject: Subject, names: Sequence[str] = tuple(CHECKS)) -> Iterator[Finding]:
    """Put a model through the checks `names` and yield what is wrong, as it is found.

    First of all it is built and asked for its members, and nothing more where one is missing. An error that the model
    raises itself is a finding too, with the line of the model's own code where it arose.
    """
    if (missing := _try(FIRST, subject)) is not None:
        yield missing
        return
    failed: list[str] = []
    for name in (name for name in CHECKS if name in names):
        finding = _try(CHECKS[name], subject)
        if finding is not None:
            likely = next((cause for cause in CHECKS[name].may_follow if cause in failed), None)
            yield dataclasses.replace(finding, may_follow=likely)
            failed.append(name)


def _try(check: Check, subject: Subject) -> Finding | None:
    """What is wrong by `check`, if anything."""
    try:
        check(subject)
    except BrokenContract as error:
        return Finding(check.name, str(error))
    # A stranger's model may raise anything whatever, and to report it is what this function is for.
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        place = _place(error)
        return Finding(check.name, what if place else f"what the model gives cannot be worked with: {what}", place)
    return None


_NOT_THE_AUTHORS = (
    Path(__file__).parent,
    Path(torch.__file__).parent,
    Path(worldmodel.types.__file__),
    Path(worldmodel.shapes.__file__),
)


def _place(error: Exception) -> str | None:
    """The innermost line of the model's own code: neither torch, nor Python's library, nor these checks."""
    standard = Path(sysconfig.get_path("stdlib"))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        installed = "site-packages" in file.parts
        foreign = any(place == file or place in file.parents for place in _NOT_THE_AUTHORS)
        if file.exists() and not foreign and (installed or standard not in file.parents):
            return f"{file.name}, line {frame.lineno}: {frame.line}"
    return None


def summarize(found: Sequence[tuple[str, Finding]], num_tasks: int) -> list[str]:
    """What was found in `num_tasks` tasks, each cause once; `found` holds (task, finding).

    The numbers in the text are those of the first task that it was found in.
    """
    causes: dict[tuple[str, ...], list[tuple[str, Finding]]] = {}
    for task, finding in found:
        causes.setdefault(finding.cause, []).append((task, finding))
    texts: list[str] = []
    for findings in causes.values():
        tasks = list(dict.fromkeys(task for task, _ in findings))
        where = f"in {' and '.join(tasks)}"
        if len(tasks) == num_tasks:
            where = f"in {_spell(num_tasks)} tasks" if num_tasks > 1 else ""
        texts.append(describe(findings[0][1], list(dict.fromkeys(f.check for _, f in findings)), where))
    return texts


def _spell(number: int) -> str:
    return {2: "both", 3: "all three"}.get(number, f"all {number}")
