"""An inequality with numbers on both sides, and the conditions under which a theorem claims it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Condition:
    """One condition of a theorem, with its numbers."""

    text: str
    holds: bool

    def __str__(self) -> str:
        return f"{'met' if self.holds else 'NOT met'}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Inequality:
    """left <= right, as computed."""

    name: str
    left_text: str
    left: float
    right_text: str
    right: float
    conditions: tuple[Condition, ...]
    terms: Mapping[str, float]
    """What the sides are made of, and other bounds to compare with."""
    left_error: float = 0.0
    """Standard error of `left` where it is a mean over draws."""

    @property
    def holds(self) -> bool:
        """Whether left <= right, rounding apart; draws are taken at face value."""
        return self.left <= self.right + 1e-9 * abs(self.right) + 1e-12

    @property
    def conditions_hold(self) -> bool:
        """Whether all conditions are met."""
        return all(condition.holds for condition in self.conditions)

    def describe(self) -> str:
        """Both sides, the verdict, the conditions and the terms, one a line."""
        error = f" +- {self.left_error:.2g}" if self.left_error else ""
        lines = [
            f"{self.name}: {'holds' if self.holds else 'FAILS'}",
            f"  left   {self.left:.6g}{error} = {self.left_text}",
            f"  right  {self.right:.6g} = {self.right_text}",
            *(f"  {condition}" for condition in self.conditions),
            *(f"  {name} = {value:.6g}" for name, value in self.terms.items()),
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()
