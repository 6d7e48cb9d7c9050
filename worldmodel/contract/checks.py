"""Every check of the contract by name, with what it asks, why, and what usually cures a model that fails it."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from worldmodel.contract import acting_checks, learning_checks, purity_checks, shape_checks
from worldmodel.contract.subject import BrokenContract, Subject


@dataclasses.dataclass(frozen=True)
class Check:
    """One point of the contract. Called with a `Subject` it passes, or raises `BrokenContract` or the model's error."""

    run: Callable[[Subject], None]
    why: str
    """What would go wrong in training without it."""
    cure: str
    """What to look at first."""

    def __call__(self, subject: Subject) -> None:
        """Put `subject` through it."""
        self.run(subject)

    @property
    def asks(self) -> str:
        """What is asked for, in one sentence."""
        return (self.run.__doc__ or "").strip()


CHECKS: dict[str, Check] = {
    "shapes": Check(
        shape_checks.check_shapes,
        "policy, critic and losses are built for these sizes",
        "compare with the shapes in worldmodel/types.py: the batch is the first axis, reward and continuation have no"
        " other, and the carry is a frozen dataclass with the mixin TensorStruct",
    ),
    "finite": Check(
        shape_checks.check_finite,
        "one NaN in an imagined rollout stops the training",
        "bound what is fed back: clamp imagined states, standard deviations and exponentials",
    ),
    "generator": Check(
        purity_checks.check_generator,
        "a run could not be repeated or resumed bit for bit",
        "draw with torch.randn(shape, generator=generator, device=...), never torch.randn(shape), torch.distributions"
        " or dropout; a model that draws nothing is checked with stochastic=false",
    ),
    "rows_independent": Check(
        purity_checks.check_rows_independent,
        "rollouts that should be independent would share information",
        "no statistics over the batch in start, step and observe: no BatchNorm, no mean over axis 0",
    ),
    "indexing": Check(
        shape_checks.check_indexing,
        "rollouts are picked, shuffled and resumed by indexing the carry",
        "put the batch first in every tensor of the carry; what is not one value a rollout is no tensor of it",
    ),
    "inputs_untouched": Check(
        purity_checks.check_inputs_untouched,
        "the replay's data would change under the training",
        "no operation that ends in an underscore, and no assignment to an index, on what was given",
    ),
    "nothing_hidden": Check(
        purity_checks.check_nothing_hidden,
        "evaluation and training would disturb each other, and branches of a rollout could not be compared",
        "keep everything that lasts between two calls in the carry, nothing in self; do not write into an older carry",
    ),
    "save_and_load": Check(
        learning_checks.check_save_and_load,
        "a checkpoint would not be the model that was saved",
        "register running statistics with register_buffer, persistent=True; networks as submodules",
    ),
    "training_resumes": Check(
        learning_checks.check_training_resumes,
        "a run that goes on from a checkpoint would not be the run that never stopped",
        "register counters and running means of forward with register_buffer; `independent` parts draw dropout from"
        " their generator",
    ),
    "parts": Check(
        learning_checks.check_parts,
        "batches hold padding at the ends of episodes, at times nothing else",
        "average over segment.valid with worldmodel.losses.masked_mean, detach what is logged, and set optim,"
        " segment_length and burn_in",
    ),
    "only_valid_counts": Check(
        learning_checks.check_only_valid_counts,
        "a model would learn from steps that never happened",
        "average over segment.valid with worldmodel.losses.masked_mean; mask or hide padding before anything pools,"
        " attends or recurs over time",
    ),
    "one_part_each": Check(
        learning_checks.check_one_part_each,
        "what is in no part has no optimiser and stays as it was drawn; two optimisers would pull at what is in two",
        "make the layer a submodule of one part; let other parts hold it in a tuple, which registers nothing",
    ),
    "every_parameter_learns": Check(
        learning_checks.check_every_parameter_learns,
        "a parameter without a gradient is a layer that is not connected, or counts for nothing",
        "remove it, or name it in dead_parameters if it is meant so",
    ),
    "views_do_not_leak": Check(
        acting_checks.check_views_do_not_leak,
        "policies would be called decentralised and rely on what their agents cannot see",
        "build agent i's view from its own observations and actions alone, or say decentralized = False",
    ),
    "padding": Check(
        shape_checks.check_padding,
        "policies would be fed with other numbers in imagination than in the environment",
        "torch.where(spec.own_obs_mask(), obs, spec.known_obs()) on predicted observations",
    ),
    "observe_forgets": Check(
        acting_checks.check_observe_forgets,
        "a new episode would begin with memories of the one before",
        "in observe, reset the rows with transition.is_first, and no others, also where transition.state is None",
    ),
}
"""In the order in which they are best read: a wrong shape makes most others fail too."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A point of the contract that a model does not keep."""

    check: str
    problem: str

    def __str__(self) -> str:
        """In four lines: what is wrong, what was asked, why, and what to do."""
        check = CHECKS[self.check]
        return f"{self.check}: {self.problem}\n  asked  {check.asks}\n  why    {check.why}\n  try    {check.cure}"


def broken_checks(subject: Subject, names: Sequence[str] = tuple(CHECKS)) -> Iterator[Finding]:
    """Put a model through the checks `names` and yield what is wrong, as it is found.

    An error that the model raises itself is a finding too, with the line of the model's own code where it arose.
    """
    for name in names:
        try:
            CHECKS[name](subject)
        except BrokenContract as error:
            yield Finding(name, str(error))
        # A stranger's model may raise anything whatever, and to report it is what this function is for.
        except Exception as error:
            yield Finding(name, f"{type(error).__name__}: {' '.join(str(error).split())} ({_where(error)})")


def _where(error: Exception) -> str:
    """The innermost line that lies outside these checks and outside installed packages."""
    here = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if here not in Path(frame.filename).parents]
    outside = [frame for frame in own if "site-packages" not in frame.filename] or own or frames
    frame = outside[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line}"
