"""Every check of the contract by name, with what it asks, why, and what usually cures a model that fails it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from worldmodel.contract import acting_checks, learning_checks, members, purity_checks, shape_checks
from worldmodel.contract.subject import Subject


@dataclasses.dataclass(frozen=True)
class Check:
    """One point of the contract. Called with a `Subject` it passes, or raises `BrokenContract` or the model's error."""

    name: str
    run: Callable[[Subject], None]
    why: str
    """What would go wrong in training without it."""
    cure: str
    """What to look at first."""
    may_follow: tuple[str, ...] = ("shapes", "inputs_untouched", "nothing_hidden", "finite")
    """Checks before it whose failure makes it fail too, as a rule: likeliest first."""

    def __call__(self, subject: Subject) -> None:
        """Put `subject` through it."""
        self.run(subject)

    @property
    def asks(self) -> str:
        """What is asked for, in one sentence."""
        return (self.run.__doc__ or "").strip()


FIRST = Check(
    "members",
    members.check_members,
    "nothing can be asked of a model that cannot be called",
    "compare with WorldModel in worldmodel/protocol.py: every member, with these arguments, generator by name",
    may_follow=(),
)
"""What comes before all others, none of which means anything where it fails."""

_ALL = (
    Check(
        "shapes",
        shape_checks.check_shapes,
        "policy, critic and losses are built for these sizes",
        "compare with the shapes in worldmodel/types.py: the batch is the first axis, reward and continuation have no"
        " other, and the carry is a frozen dataclass with the mixin TensorStruct",
    ),
    Check(
        "inputs_untouched",
        purity_checks.check_inputs_untouched,
        "the replay's data would change under the training",
        "no operation that ends in an underscore, and no assignment to an index, on what was given",
    ),
    Check(
        "nothing_hidden",
        purity_checks.check_nothing_hidden,
        "evaluation and training would disturb each other, and branches of a rollout could not be compared",
        "keep everything that lasts between two calls in the carry, nothing in self; do not write into an older carry",
    ),
    Check(
        "finite",
        shape_checks.check_finite,
        "one NaN in an imagined rollout stops the training",
        "bound what is fed back: clamp imagined states, standard deviations and exponentials",
    ),
    Check(
        "indexing",
        shape_checks.check_indexing,
        "rollouts are picked, shuffled and resumed by indexing the carry",
        "put the batch first in every tensor of the carry; what is not one value a rollout is no tensor of it",
    ),
    Check(
        "generator",
        purity_checks.check_generator,
        "a run could not be repeated or resumed bit for bit",
        "draw with torch.randn(shape, generator=generator, device=...), never torch.randn(shape), torch.distributions"
        " or dropout; a model that draws nothing is checked with stochastic=false",
    ),
    Check(
        "rows_independent",
        purity_checks.check_rows_independent,
        "rollouts that should be independent would share information",
        "no statistics over the batch in start, step and observe: no BatchNorm, no mean over axis 0",
    ),
    Check(
        "save_and_load",
        learning_checks.check_save_and_load,
        "a checkpoint would not be the model that was saved",
        "register running statistics with register_buffer, persistent=True; networks as submodules",
    ),
    Check(
        "parts",
        learning_checks.check_parts,
        "batches hold padding at the ends of episodes, at times nothing else",
        "average over segment.valid with worldmodel.losses.masked_mean, detach what is logged, and set optim,"
        " segment_length and burn_in",
        may_follow=(),
    ),
    Check(
        "training_resumes",
        learning_checks.check_training_resumes,
        "a run that goes on from a checkpoint would not be the run that never stopped",
        "register counters and running means of forward with register_buffer; `independent` parts draw dropout from"
        " their generator",
        may_follow=("parts",),
    ),
    Check(
        "only_valid_counts",
        learning_checks.check_only_valid_counts,
        "a model would learn from steps that never happened",
        "average over segment.valid with worldmodel.losses.masked_mean; mask or hide padding before anything pools,"
        " attends or recurs over time",
        may_follow=("parts",),
    ),
    Check(
        "one_part_each",
        learning_checks.check_one_part_each,
        "what is in no part has no optimiser and stays as it was drawn; two optimisers would pull at what is in two",
        "make the layer a submodule of one part; let other parts hold it in a tuple, which registers nothing",
        may_follow=("parts",),
    ),
    Check(
        "every_parameter_learns",
        learning_checks.check_every_parameter_learns,
        "a parameter without a gradient is a layer that is not connected, or counts for nothing",
        "remove it, or name it in dead_parameters if it is meant so",
        may_follow=("parts",),
    ),
    Check(
        "views_do_not_leak",
        acting_checks.check_views_do_not_leak,
        "policies would be called decentralised and rely on what their agents cannot see",
        "build agent i's view from its own observations and actions alone, or say decentralized = False",
    ),
    Check(
        "padding",
        shape_checks.check_padding,
        "policies would be fed with other numbers in imagination than in the environment",
        "torch.where(spec.own_obs_mask(), obs, spec.known_obs()) on predicted observations",
        may_follow=("shapes", "finite"),
    ),
    Check(
        "observe_forgets",
        acting_checks.check_observe_forgets,
        "a new episode would begin with memories of the one before",
        "in observe, reset the rows with transition.is_first, and no others, also where transition.state is None",
    ),
)

CHECKS: dict[str, Check] = {check.name: check for check in _ALL}
"""By name, causes before what follows from them: a wrong shape or a hidden counter makes most others fail too."""
