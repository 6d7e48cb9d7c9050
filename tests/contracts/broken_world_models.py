"""World models that break the contract, one for each way of breaking it.

They prove that the checks can fail: each differs from the sound one in the one thing it is named after.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from tests.contracts.broken_offers import (
    BlindsItself,
    DecodesToStates,
    FastWithoutReward,
    IsNotBlind,
    KnowsOrdersAlone,
    OrdersToNothing,
    OrdersToWrongShapes,
)
from tests.contracts.broken_parts import (
    DropsOutBesideOtherParts,
    ForgetsAPart,
    ForgetsItsScheduleOnSave,
    ForgetsItsStatisticsOnSave,
    HasAnUnusedModule,
    HasAnUnusedParameter,
    HasNoOptimiser,
    HasNoParts,
    LearnsFromPadding,
    LearnsOutsideItsParts,
    LogsAFloat,
    LossIsNaNWithoutTargets,
    SharesALayer,
    SharesALayerWithIndependent,
    TakesNoGenerator,
)
from tests.contracts.sound_world_model import SoundModel, SoundState
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Transition


class RewardOfWrongShape(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, reward=prediction.reward[:, None])


class ContinuationAboveOne(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, continuation=1 + prediction.continuation)


class LessThanCertain(SoundModel):
    reports_uncertainty = True

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, uncertainty=-torch.ones_like(prediction.reward))


class KeepsItsDoubtsToItself(SoundModel):
    reports_uncertainty = True


class DoubtsUnannounced(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, uncertainty=torch.ones_like(prediction.reward))


class NeedsTheState(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        following = super().observe(state, transition, generator=generator)
        return following if transition.state is not None else SoundState(None, transition.obs)  # type: ignore[arg-type]

    def view(self, state: Any) -> AgentView:
        return AgentView(state.obs, None if state.states is None else state.states[:, 1])  # type: ignore[arg-type]


class ViewInDoublePrecision(SoundModel):
    def view(self, state: Any) -> AgentView:
        view = super().view(state)
        return AgentView(view.actor.double(), view.critic)


class CriticDimMisstated(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.critic_dim += 1


class ViewOfHalfTheState(SoundModel):
    def view(self, state: Any) -> AgentView:
        return dataclasses.replace(super().view(state), state=state.states[:, 1, :2])


class Explodes(SoundModel):
    @torch.no_grad()
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return dataclasses.replace(state, states=state.states.exp().exp().exp()), prediction


class IgnoresTheGenerator(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        return super().step(state, action, generator=torch.Generator().manual_seed(0))


class DrawsAtStartAlone(IgnoresTheGenerator):
    def start(self, context: Segment, *, generator: torch.Generator) -> Any:
        state = super().start(context, generator=generator)
        return dataclasses.replace(state, states=state.states + torch.randn(state.states.shape, generator=generator))


class DrawsFromTheDefaultGenerator(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, reward=prediction.reward + torch.randn(len(action)))


class NormalizesOverTheBatch(SoundModel):
    def start(self, context: Segment, *, generator: torch.Generator) -> Any:
        state = super().start(context, generator=generator)
        return dataclasses.replace(state, states=state.states - state.states.mean(dim=0))


class ObservesOverTheBatch(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        state = super().observe(state, transition, generator=generator)
        return dataclasses.replace(state, states=state.states - state.states.mean(dim=0))


class AnyFirstForgetsAll(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        first = transition.is_first.any().expand_as(transition.is_first)
        return super().observe(state, dataclasses.replace(transition, is_first=first), generator=generator)


@dataclasses.dataclass(frozen=True)
class TimeFirstState(TensorStruct):
    """States [2,B,S]: the batch is not the first axis."""

    states: Tensor
    obs: Tensor


class CarryIsTimeFirst(SoundModel):
    def start(self, context: Segment, *, generator: torch.Generator) -> Any:
        return self._pack(super().start(context, generator=generator))

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(self._unpack(state), action, generator=generator)
        return self._pack(state), prediction

    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        return self._pack(super().observe(self._unpack(state), transition, generator=generator))

    def view(self, state: Any) -> AgentView:
        return super().view(self._unpack(state))

    def _pack(self, state: SoundState) -> TimeFirstState:
        return TimeFirstState(state.states.transpose(0, 1), state.obs)

    def _unpack(self, state: TimeFirstState) -> SoundState:
        return SoundState(state.states.transpose(0, 1), state.obs)


class CountsItsRows(SoundModel):
    """Right for whole batches, and wrong for some of their rows."""

    def view(self, state: Any) -> AgentView:
        view = super().view(state)
        return dataclasses.replace(view, critic=view.critic + len(view.critic))


class ChangesTheContext(SoundModel):
    def start(self, context: Segment, *, generator: torch.Generator) -> Any:
        context.state.mul_(0.5)
        return super().start(context, generator=generator)


class ChangesTheAction(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        return super().step(state, action.mul_(0.5), generator=generator)


class ChangesTheTransition(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        transition.obs.mul_(0.5)
        return super().observe(state, transition, generator=generator)


class CountsItsSteps(SoundModel):
    """Keeps a number between calls that belongs into the carry."""

    steps = 0

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        self.steps += 1
        state, prediction = super().step(state, action, generator=generator)
        return state, dataclasses.replace(prediction, reward=prediction.reward + self.steps)


class WritesIntoTheCarry(SoundModel):
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        following, prediction = super().step(state, action, generator=generator)
        state.states.copy_(following.states)
        return state, dataclasses.replace(prediction)


class SeesNothing(SoundModel):
    def view(self, state: Any) -> AgentView:
        view = super().view(state)
        return AgentView(torch.zeros_like(view.actor), view.critic)


class SharesObservations(SoundModel):
    def view(self, state: Any) -> AgentView:
        view = super().view(state)
        return AgentView(view.actor + view.actor.mean(dim=1, keepdim=True), view.critic)


class PeeksAtTheState(SoundModel):
    def view(self, state: Any) -> AgentView:
        view = super().view(state)
        return AgentView(view.actor + state.states[:, 1].mean(dim=1)[:, None, None], view.critic)


class FillsThePadding(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.decoder.is_own.fill_(True)


class GuessesTheIds(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.decoder.is_own.copy_(spec.obs_mask())


class NeverForgets(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        later = dataclasses.replace(transition, is_first=torch.zeros_like(transition.is_first))
        return super().observe(state, later, generator=generator)


class RemembersWhereItSeesNoState(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        following = super().observe(state, transition, generator=generator)
        if transition.state is not None:
            return following
        return dataclasses.replace(following, states=state.states)


class AlwaysForgets(SoundModel):
    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        first = dataclasses.replace(transition, is_first=torch.ones_like(transition.is_first))
        return super().observe(state, first, generator=generator)


BROKEN: dict[type[SoundModel], tuple[str, str]] = {
    RewardOfWrongShape: ("shapes", "reward has shape"),
    ContinuationAboveOne: ("shapes", "continuation reaches 1.[0-9]+: expected probabilities"),
    KeepsItsDoubtsToItself: ("shapes", "uncertainty is None and the model has reports_uncertainty = True"),
    LessThanCertain: ("shapes", "uncertainty reaches -1: expected at least 0"),
    DoubtsUnannounced: ("shapes", "uncertainty is given: expected a model with reports_uncertainty = True"),
    NeedsTheState: ("shapes", "state is None, as it may be: critic is a NoneType: expected a Tensor"),
    ViewInDoublePrecision: ("shapes", "torch.float64"),
    CriticDimMisstated: ("shapes", "view after start: critic"),
    ViewOfHalfTheState: ("shapes", "view after start: state has shape"),
    DecodesToStates: ("shapes", "decode_states.* has shape .6, 5., expected 3 axes"),
    OrdersToNothing: ("shapes", "with_order.* is a NoneType: expected a Module"),
    OrdersToWrongShapes: ("shapes", "with_order.*: view after step: critic has shape"),
    KnowsOrdersAlone: ("shapes", "with_order without the other"),
    BlindsItself: ("shapes", "changed the model that it was asked of"),
    IsNotBlind: ("shapes", "without_actions.*: prediction 1: .* changes with the current action"),
    FastWithoutReward: ("shapes", "accelerated.*: prediction: reward has shape"),
    Explodes: ("finite", "is not finite"),
    IgnoresTheGenerator: ("generator", "another seed gives the same rollout"),
    DrawsAtStartAlone: ("generator", "`step` does not draw from its generator"),
    DrawsFromTheDefaultGenerator: ("generator", "default generator"),
    NormalizesOverTheBatch: ("rows_independent", "depends on the other rows"),
    ObservesOverTheBatch: ("rows_independent", "after observe, .* depends on the other rows"),
    AnyFirstForgetsAll: ("rows_independent", "depends on is_first of the other rows"),
    CarryIsTimeFirst: ("indexing", "carry: states has shape .2, 5, 5. where there are B = 5 rows"),
    CountsItsRows: ("indexing", "not that of the rows picked"),
    ChangesTheContext: ("inputs_untouched", "context: state was changed"),
    ChangesTheAction: ("inputs_untouched", "action was changed"),
    ChangesTheTransition: ("inputs_untouched", "transition: obs was changed"),
    CountsItsSteps: ("nothing_hidden", "reward.* is another after other calls"),
    WritesIntoTheCarry: ("nothing_hidden", "after other calls"),
    ForgetsItsStatisticsOnSave: ("save_and_load", "not in the state dict"),
    ForgetsItsScheduleOnSave: ("training_resumes", "part dynamics: its loss is another after save and load"),
    DropsOutBesideOtherParts: ("training_resumes", "part dynamics is independent and draws from torch's default"),
    HasNoParts: ("parts", "parts.. is empty, and the model has parameters"),
    HasNoOptimiser: ("parts", "part decoder: optim = None: expected an OptimConfig"),
    LearnsFromPadding: ("only_valid_counts", "part dynamics: the loss changes with what stands behind"),
    LearnsOutsideItsParts: ("one_part_each", "in none of the parts dynamics, decoder: scale$"),
    SharesALayer: ("one_part_each", "belongs to the parts dynamics and decoder"),
    SharesALayerWithIndependent: ("one_part_each", "belongs to the parts dynamics and decoder"),
    ForgetsAPart: ("one_part_each", "decoder.. .2 parameters.; is decoder missing from parts"),
    LogsAFloat: ("parts", "metric mse is a float: expected a detached scalar tensor"),
    TakesNoGenerator: (
        "parts",
        "dynamics.forward cannot be called as .*broken_parts.py, line",
    ),
    HasAnUnusedModule: ("every_parameter_learns", "decoder: dynamics.unused.. .4 parameters.$"),
    LossIsNaNWithoutTargets: ("parts", "without any valid step: loss = nan"),
    HasAnUnusedParameter: ("every_parameter_learns", "no gradient from any of dynamics, decoder: unused$"),
    SeesNothing: ("views_do_not_leak", "actor view of agent 0 does not change with what it observes"),
    SharesObservations: ("views_do_not_leak", "change with what agent 0 observes"),
    PeeksAtTheState: ("views_do_not_leak", "change with the global state"),
    FillsThePadding: ("padding", "expected zeros"),
    GuessesTheIds: ("padding", "are not the agents' ids"),
    NeverForgets: ("observe_forgets", "depends on what came before"),
    RemembersWhereItSeesNoState: ("observe_forgets", "is_first and no state, .* depends on what came before"),
    AlwaysForgets: ("observe_forgets", "context_length = 2 says that the past matters, but observe keeps nothing"),
}
"""Each broken model with the check that must find it, and what the message must say."""
