"""A state inferencer under test, what it is asked, and how its answers are taken: for the contract's checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from worldmodel.contract.random_data import random_obs, random_state, random_trajectory, stir
from worldmodel.protocol import Learnable, StateInference
from worldmodel.types import EnvSpec

BATCH = 5


@dataclasses.dataclass(frozen=True)
class Subject:
    """An inferencer under test."""

    build: Callable[[], Any]
    """A fresh `StateInference`, its weights drawn from torch's default generator."""
    spec: EnvSpec
    stochastic: bool = True
    """False for one that gives the same answer whatever it draws."""
    is_oracle: bool = False
    """True for one that reads the true state."""
    answer_dim: int | None = None
    """Length of an answer that is no state; None: it is one."""

    def inference(self, seed: int = 0) -> StateInference:
        """One that looks trained, in evaluation mode: no parameter is zero, and it has seen an episode."""
        torch.manual_seed(seed)
        inference = self.build()
        assert isinstance(inference, StateInference), f"{type(inference).__name__} lacks a part of StateInference"
        if isinstance(inference, nn.Module):
            stir(inference, seed)
            cast("Learnable", inference).update_statistics(random_trajectory(self.spec, 30, seeded(seed)))
            inference.train(False)
        return inference


@dataclasses.dataclass(frozen=True)
class Question:
    """The tensors of one call: `history` [B,m+1,N,O], `agent` [B], `state` [B,S]."""

    history: Tensor
    agent: Tensor | None
    state: Tensor | None


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def make_question(inference: StateInference, spec: EnvSpec, seed: int = 1, batch: int = BATCH) -> Question:
    """Random observations; every agent asks in turn."""
    g = seeded(seed)
    rows = batch * (inference.history_steps + 1)
    history = random_obs(spec, rows, g).unflatten(0, (batch, -1))
    return Question(history, torch.arange(batch) % spec.num_agents, random_state(spec, batch, g))


def ask(inference: StateInference, question: Question, num_samples: int = 2, seed: int = 4) -> Tensor:
    """The answer [M,B,S]."""
    return inference.infer(
        question.history,
        num_samples=num_samples,
        generator=seeded(seed),
        agent=question.agent,
        state=question.state,
    )


def merged(rows: Tensor, one: Tensor | None, other: Tensor | None) -> Tensor:
    """`one` in `rows` [B], `other` elsewhere."""
    assert one is not None
    assert other is not None
    return torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, other)


def one_row(question: Question, row: int) -> Question:
    """The question of one row alone."""
    agent, state = (None if t is None else t[row : row + 1] for t in (question.agent, question.state))
    return Question(question.history[row : row + 1], agent, state)


def must_raise(error: type[Exception], message: str, call: Callable[[], object], what: str = "") -> None:
    """Raise an AssertionError unless `call` raises `error` with `message` in it."""
    try:
        call()
    except Exception as raised:
        problem = _what_is_wrong(raised, error, message)
    else:
        problem = "is not refused"
    assert problem is None, f"{what} {problem}"


def _what_is_wrong(raised: Exception, error: type[Exception], message: str) -> str | None:
    if not isinstance(raised, error):
        return f"gives a {type(raised).__name__}, expected a {error.__name__}: {raised}"
    return None if message in str(raised) else f"is refused with {str(raised)!r}, which does not say {message!r}"
