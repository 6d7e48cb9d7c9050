"""What an environment raises when it breaks its contract. Imports nothing, so that any environment can raise it."""

from __future__ import annotations


class EnvError(ValueError):
    """An environment broke the contract; the message names it, the field, what was got and what was expected.

    `advice`: what its author can do about it, where the message does not say that already.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice
