"""What every state inferencer must keep, as functions that raise an AssertionError saying what is wrong.

Each takes a `Subject`: an inferencer that can be built anew, and the environment it is built for. Put one of your own
through `CHECKS`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from tests.contracts.state_inference_subject import (
    BATCH,
    Question,
    Subject,
    ask,
    make_question,
    merged,
    must_raise,
    one_row,
    seeded,
)
from worldmodel.contract.random_data import random_segment, random_trajectory
from worldmodel.protocol import Learnable
from worldmodel.shapes import check_shape


def check_shapes(subject: Subject) -> None:
    """Answers are [M,B,S], in float32 and finite, for one row and one draw and for several."""
    inference, spec = subject.inference(), subject.spec
    assert inference.auxiliary in ("own", "joint"), f"auxiliary = {inference.auxiliary!r}: expected own or joint"
    assert inference.history_steps >= 0, f"history_steps = {inference.history_steps}: expected at least 0"
    for num_samples, batch in ((1, 1), (1, BATCH), (3, 1), (3, BATCH)):
        answer = ask(inference, make_question(inference, spec, batch=batch), num_samples)
        size = spec.state_dim if subject.answer_dim is None else subject.answer_dim
        try:
            check_shape("the answer", answer, "M B S", M=num_samples, B=batch, S=size)
        except ValueError as error:
            raise AssertionError(str(error)) from error
        assert answer.dtype == torch.float32, f"the answer is {answer.dtype}: expected torch.float32"
        assert not answer.requires_grad, "the answer carries gradients"
        assert torch.isfinite(answer).all(), "the answer is not finite"


def check_generator(subject: Subject) -> None:
    """The same seed gives the same answer, another one another; torch's own generator is left alone."""
    inference = subject.inference()
    question = make_question(inference, subject.spec)

    def play(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        answer = ask(inference, question, seed=seed)
        assert torch.equal(before, torch.get_rng_state()), "torch's default generator was drawn from"
        return answer

    first = play(1, 1)
    assert torch.equal(first, play(1, 2)), "the same seed gives another answer"
    if subject.stochastic:
        assert not torch.equal(first, play(2, 1)), "another seed gives the same answer: it is not used"
        assert not torch.equal(first[0], first[1]), "two draws are the same"
    else:
        assert torch.equal(first, play(2, 1)), "is said to be without chance and draws"


def check_rows_independent(subject: Subject) -> None:
    """What is inferred in a row does not depend, to the bit, on the other rows; without chance it may stand alone."""
    inference = subject.inference()
    one, other = (make_question(inference, subject.spec, seed) for seed in (1, 11))
    here = torch.arange(BATCH) == 1
    mixed = Question(merged(here, one.history, other.history), one.agent, merged(here, one.state, other.state))
    first, second = ask(inference, one), ask(inference, mixed)
    assert torch.equal(first[:, 1], second[:, 1]), "the answer of one row depends on the other rows"
    assert not torch.equal(first[:, 0], second[:, 0]), "other observations and another state change nothing"
    if not subject.stochastic:
        alone = ask(inference, one_row(one, 1))
        torch.testing.assert_close(alone[:, 0], first[:, 1], rtol=1e-5, atol=1e-5)


def check_others_unseen(subject: Subject) -> None:
    """An `own` answer does not change by a bit with what others observe, and any answer with what its reader does."""
    inference, spec = subject.inference(), subject.spec
    question = make_question(inference, spec)
    assert question.agent is not None
    before = ask(inference, question)
    for agent in range(spec.num_agents):
        history = question.history.clone()
        history[:, :, agent] *= -0.5
        after = ask(inference, dataclasses.replace(question, history=history))
        blind = question.agent != agent
        if inference.auxiliary == "own":
            assert torch.equal(before[:, blind], after[:, blind]), (
                f"auxiliary is own, yet answers of other agents change with what agent {agent} observes"
            )
        if not subject.is_oracle:
            reads = ~blind if inference.auxiliary == "own" else torch.ones_like(blind)
            same = (before == after).all(dim=-1)[:, reads]
            assert not same.all(), f"no answer changes with what agent {agent} observes"


def check_state_unseen(subject: Subject) -> None:
    """Only an oracle reads the true state."""
    inference = subject.inference()
    question = make_question(inference, subject.spec)
    before = ask(inference, question)
    assert question.state is not None
    if subject.is_oracle:
        assert torch.equal(before, question.state.expand(2, -1, -1)), "an oracle gives another state than the true one"
        must_raise(ValueError, "state is None", lambda: ask(inference, dataclasses.replace(question, state=None)))
        return
    for state in (None, -question.state):
        again = ask(inference, dataclasses.replace(question, state=state))
        assert torch.equal(before, again), "the answer changes with the true state"


def check_inputs_untouched(subject: Subject) -> None:
    """Everything handed over is afterwards as it was."""
    inference, spec = subject.inference(), subject.spec
    question, trajectory = make_question(inference, spec), random_trajectory(spec, 9, seeded(8))
    inputs = {name: tensor for name, tensor in vars(question).items() if tensor is not None}
    inputs |= dict(trajectory.tensors())
    segments = {}
    if isinstance(inference, nn.Module):
        for name, part in cast("Learnable", inference).parts().items():
            segments[name] = random_segment(spec, BATCH, part.segment_length, seeded(9))
            inputs |= {f"segment of {name}: {key}": tensor for key, tensor in segments[name].tensors()}
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    ask(inference, question)
    if isinstance(inference, nn.Module):
        cast("Learnable", inference).update_statistics(trajectory)
        for name, part in cast("Learnable", inference).parts().items():
            part(segments[name], seeded(0))
    for name, tensor in inputs.items():
        assert torch.equal(before[name], tensor), f"{name} was changed"


def check_nothing_hidden(subject: Subject) -> None:
    """The same call gives the same answer whatever was asked in between."""
    inference = subject.inference()
    question = make_question(inference, subject.spec)
    before = ask(inference, question)
    ask(inference, make_question(inference, subject.spec, 21), num_samples=3, seed=22)
    assert torch.equal(before, ask(inference, question)), "the answer is another after other calls"


def check_refusals(subject: Subject) -> None:
    """Histories of another shape, observations that are no numbers and unknown agents are refused by name."""
    inference, spec = subject.inference(), subject.spec
    good = make_question(inference, spec)
    assert good.agent is not None

    def refuse(what: str, message: str, error: type[Exception] = ValueError, **changes: Any) -> None:
        bad = dataclasses.replace(good, **changes)
        must_raise(error, message, lambda: ask(inference, bad), what)

    longer = torch.cat([good.history, good.history[:, :1]], dim=1)
    refuse("a history that is too long", "history has shape", history=longer)
    refuse("a history that is too short", "history has shape", history=good.history[:, 1:])
    refuse("a history of fewer agents", "history has shape", history=good.history[:, :, 1:])
    refuse("observations that are too short", "history has shape", history=good.history[..., 1:])
    refuse("as many agents as rows plus one", "agent has shape", agent=torch.zeros(BATCH + 1, dtype=torch.long))
    for unknown in (-1, spec.num_agents):
        agent = torch.where(torch.arange(BATCH) == 2, unknown, good.agent)
        refuse(f"agent {unknown}", f"agent {unknown}", agent=agent)
    if inference.auxiliary == "own":
        refuse("no agent", "agent is None", agent=None)
    last = good.history.shape[1] - 1
    for value in (math.nan, math.inf):
        history = good.history.clone()
        history[2, last, spec.num_agents - 1, 1] = value
        named = f"history[2, {last}, {spec.num_agents - 1}, 1] is {value}"
        refuse(f"{value} among the observations", named, FloatingPointError, history=history)


def check_save_and_load(subject: Subject) -> None:
    """Another inferencer with the saved tensors, weights and statistics, gives the same answers to the bit."""
    inference = subject.inference()
    if not isinstance(inference, nn.Module):
        return
    question = make_question(inference, subject.spec)
    saved: Mapping[str, Tensor] = load(save({name: t.contiguous() for name, t in inference.state_dict().items()}))
    other = subject.inference(seed=1)
    if not torch.equal(ask(inference, question), ask(other, question)):
        cast("nn.Module", other).load_state_dict(dict(saved))
        same = torch.equal(ask(inference, question), ask(other, question))
        assert same, "after loading, answers differ: something is not in the state dict"
        return
    raise AssertionError("two inferencers with other weights and data answer alike")


def check_learns(subject: Subject) -> None:
    """The loss is finite at an episode's start and later, repeats with its seed, and reaches every parameter."""
    inference, spec = subject.inference(), subject.spec
    if not isinstance(inference, nn.Module):
        return
    for part in cast("Learnable", inference).parts().values():
        batch, length = 64, part.segment_length
        valid = torch.arange(length) >= (torch.arange(batch) % length)[:, None]
        segment = random_segment(spec, batch, length, seeded(6), valid)
        before = torch.get_rng_state()
        losses = [part(segment, seeded(seed)).loss for seed in (1, 1, 2)]
        assert torch.equal(before, torch.get_rng_state()), "the loss draws from torch's default generator"
        assert torch.isfinite(torch.stack(losses)).all(), f"the loss is {losses}"
        assert torch.equal(losses[0], losses[1]), "the same seed gives another loss"
        losses[0].backward()
        for name, parameter in part.named_parameters():
            learns = not parameter.requires_grad or (parameter.grad is not None and bool(parameter.grad.any()))
            assert learns, f"parameter {name} gets no gradient"


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_shapes,
        check_generator,
        check_rows_independent,
        check_others_unseen,
        check_state_unseen,
        check_inputs_untouched,
        check_nothing_hidden,
        check_refusals,
        check_save_and_load,
        check_learns,
    )
}
"""Every check by name."""
