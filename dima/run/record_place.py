"""Reading parsed JSON that somebody else wrote: each value knows the dotted name under which a person finds it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class RecordError(ValueError):
    """A record that cannot be used: names the first key that is missing or wrong, and what was expected."""


class Place:
    """A value in a record and its name. Every check raises `RecordError` where the value is something else."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def fail(self, expected: str) -> RecordError:
        """The error that says what is here and what should be."""
        shown = repr(self.value)
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        return RecordError(f"{self.name or 'the record'} is {shown}: expected {expected}")

    def mapping(self) -> Mapping[str, Any]:
        """The value, an object with keys."""
        if not isinstance(self.value, dict):
            raise self.fail("an object with keys")
        return self.value

    def __getitem__(self, key: str) -> Place:
        name = f"{self.name}.{key}" if self.name else key
        if key not in self.mapping():
            raise RecordError(f"{name} is missing")
        return Place(name, self.value[key])

    def each(self, check: Callable[[Place], Any]) -> None:
        """Check every value of an object."""
        for key in self.mapping():
            check(self[key])

    def items(self, length: int | None = None) -> list[Place]:
        """The elements of a list of `length`, or of any length."""
        if not isinstance(self.value, list):
            raise self.fail("a list")
        if length is not None and len(self.value) != length:
            raise RecordError(f"{self.name} has {len(self.value)} elements: expected {length}")
        return [Place(f"{self.name}[{index}]", value) for index, value in enumerate(self.value)]

    def marked(self, keys: Sequence[str], check: Callable[[Place], Any]) -> None:
        """Check one value under each of `keys`."""
        for key in keys:
            check(self[key])

    def optional(self, check: Callable[[Place], Any]) -> None:
        """Check the value unless it is null."""
        if self.value is not None:
            check(self)

    def text(self) -> str:
        """The value, a string."""
        if not isinstance(self.value, str):
            raise self.fail("text")
        return self.value

    def one_of(self, *choices: str) -> None:
        """Require one of `choices`."""
        if self.value not in choices:
            raise self.fail(" or ".join(choices))

    def number(self) -> float:
        """The value, a finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not math.isfinite(self.value):
            raise self.fail("a finite number")
        return self.value

    def integer(self, at_least: int | None = None) -> int:
        """The value, a whole number and at least `at_least`."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.fail("a whole number")
        if at_least is not None and self.value < at_least:
            raise self.fail(f"at least {at_least}")
        return self.value

    def numbers(self, length: int | None = None) -> None:
        """Require a list of finite numbers."""
        for item in self.items(length):
            item.number()

    def integers(self, length: int | None = None) -> None:
        """Require a list of whole numbers."""
        for item in self.items(length):
            item.integer()

    def interval(self) -> None:
        """Require a list of two numbers in order."""
        self.numbers(2)
        if self.value[0] > self.value[1]:
            raise self.fail("the lower end first")

    def intervals(self, length: int | None = None) -> None:
        """Require a list of intervals."""
        for item in self.items(length):
            item.interval()


def read_record(path: Path, validate: Callable[[Any], None], *, missing: str, command: str) -> dict[str, Any]:
    """The content of the JSON file at `path`, checked by `validate`.

    Raises:
        RecordError: when it is missing (`missing` says what, `command` what writes one), no JSON, or refused.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        validate(record)
    except FileNotFoundError as error:
        raise RecordError(f"{missing} at {str(path)!r}: dima {command} writes one") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be used: {error}") from error
    return record
