"""A small world model that keeps the contract, and one for each way of breaking it.

They prove that the checks can fail: each broken model differs from the sound one in the one thing it is named after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.config import OptimConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, LossOutput, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class SoundState(TensorStruct):
    """States now and before [B,2,S], zeros where missing, and observations [B,N,O]."""

    states: Tensor
    obs: Tensor


class Dynamics(TrainablePart):
    """The next state and the reward, linear in two states and the joint action."""

    segment_length = 3
    burn_in = 1
    optim = OptimConfig(learning_rate=1e-3, weight_decay=0.0, grad_clip=1.0, batch_size=4)

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * spec.state_dim + spec.num_agents * spec.action_dim, spec.state_dim + 2)

    def predict(self, states: Tensor, action: Tensor) -> Tensor:
        """[B,S+2]: next state, reward, logit of continuation."""
        return self.linear(torch.cat([states.flatten(1), action.flatten(1)], dim=1))

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Squared error on the last transition, whose target is jittered with `generator`."""
        out = self.predict(segment.state[:, 1:3], segment.action[:, 2])
        jitter = 0.1 * torch.randn(out.shape, generator=generator)
        target = torch.cat([segment.state[:, 3], segment.reward[:, 2:], segment.terminated[:, 2:].float()], dim=1)
        valid = segment.valid[:, 2]
        loss = ((out - target - jitter).square().mean(dim=1) * valid).sum() / valid.sum().clamp(min=1)
        return LossOutput(loss, {"error": loss.detach()})


class Decoder(TrainablePart):
    """Observations from the state; padding and ids are known."""

    segment_length = 1
    burn_in = 0
    optim = Dynamics.optim
    is_own: Tensor
    known: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.state_dim, spec.num_agents * spec.obs_dim)
        self.register_buffer("is_own", spec.own_obs_mask(), persistent=False)
        self.register_buffer("known", spec.known_obs(), persistent=False)

    def decode(self, state: Tensor) -> Tensor:
        """[B,S] -> [B,N,O]."""
        return torch.where(self.is_own, self.linear(state).unflatten(1, self.is_own.shape), self.known)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """Squared error on the first observation."""
        real = segment.state_valid()[:, 0]
        error = (self.decode(segment.state[:, 0]) - segment.obs[:, 0]).square().mean(dim=(1, 2))
        return LossOutput((error * real).sum() / real.sum().clamp(min=1), {})


class SoundModel(nn.Module):
    """Keeps every part of the contract."""

    context_length = 2
    decentralized = True
    mean: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.spec = spec
        self.actor_dim, self.critic_dim = spec.obs_dim, spec.state_dim
        self.dynamics, self.decoder = Dynamics(spec), Decoder(spec)
        self.register_buffer("mean", torch.zeros(spec.state_dim))

    def parts(self) -> Mapping[str, TrainablePart]:
        return {"dynamics": self.dynamics, "decoder": self.decoder}

    def update_statistics(self, trajectory: Trajectory) -> None:
        self.mean.copy_(trajectory.state.mean(dim=0))

    def start(self, context: Segment, *, generator: torch.Generator) -> Any:
        return SoundState(context.state[:, -2:], context.obs[:, -1])

    @torch.no_grad()
    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        out = self.dynamics.predict(state.states - self.mean, action)
        next_state = out[:, :-2].tanh() + 0.1 * torch.randn(out[:, :-2].shape, generator=generator)
        obs = self.decoder.decode(next_state)
        following = SoundState(torch.stack([state.states[:, 1], next_state], dim=1), obs)
        return following, Prediction(obs, next_state, out[:, -2], out[:, -1].sigmoid())

    def observe(self, state: Any, transition: Transition, *, generator: torch.Generator) -> Any:
        before = state.states[:, 1] * ~transition.is_first[:, None]
        now = torch.zeros_like(before) if transition.state is None else transition.state
        return SoundState(torch.stack([before, now], dim=1), transition.obs)

    def view(self, state: Any) -> AgentView:
        return AgentView(actor=state.obs, critic=state.states[:, 1])


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


class ForgetsItsStatisticsOnSave(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        del self.mean
        self.register_buffer("mean", torch.zeros(spec.state_dim), persistent=False)


class CountingDynamics(Dynamics):
    """Its targets are jittered less with every update: a schedule that belongs into a buffer."""

    updates = 0

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        self.updates += self.training
        output = super().forward(segment, generator)
        return LossOutput(output.loss / (1 + self.updates), output.metrics)


class ForgetsItsScheduleOnSave(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics = CountingDynamics(spec)


class IndependentWithDropout(Dynamics):
    independent = True

    def predict(self, states: Tensor, action: Tensor) -> Tensor:
        return super().predict(nn.functional.dropout(states, 0.1, self.training), action)


class DropsOutBesideOtherParts(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics = IndependentWithDropout(spec)


class HasAnUnusedParameter(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.unused = nn.Parameter(torch.zeros(3))


class ScaledDynamics(Dynamics):
    """Multiplies its predictions by a parameter that it does not own."""

    def __init__(self, spec: EnvSpec, scale: nn.Parameter) -> None:
        super().__init__(spec)
        self._scale = (scale,)

    def predict(self, states: Tensor, action: Tensor) -> Tensor:
        return super().predict(states, action) * self._scale[0]


class LearnsOutsideItsParts(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.scale = nn.Parameter(torch.ones(()))
        self.dynamics = ScaledDynamics(spec, self.scale)


class SharesALayer(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics.decoder = self.decoder


class HasNoParts(SoundModel):
    def parts(self) -> Mapping[str, TrainablePart]:
        return {}


class HasNoOptimiser(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.decoder.optim = None  # type: ignore[assignment]


class CarelessDynamics(Dynamics):
    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        everything = dataclasses.replace(segment, valid=torch.ones_like(segment.valid))
        return super().forward(everything, generator)


class LearnsFromPadding(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics = CarelessDynamics(spec)


class DividesByNoTargets(Dynamics):
    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        output = super().forward(segment, generator)
        return LossOutput(output.loss / segment.valid.any(), output.metrics)


class LossIsNaNWithoutTargets(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics = DividesByNoTargets(spec)


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
    ContinuationAboveOne: ("shapes", "continuation"),
    KeepsItsDoubtsToItself: ("shapes", "uncertainty is given exactly where"),
    LessThanCertain: ("shapes", "uncertainty = .*expected at least 0"),
    ViewInDoublePrecision: ("shapes", "torch.float64"),
    CriticDimMisstated: ("shapes", "view after start: critic"),
    ViewOfHalfTheState: ("shapes", "view after start: state has shape"),
    Explodes: ("finite", "is not finite"),
    IgnoresTheGenerator: ("generator", "another seed gives the same rollout"),
    DrawsAtStartAlone: ("generator", "`step` does not draw from its generator"),
    DrawsFromTheDefaultGenerator: ("generator", "default generator"),
    NormalizesOverTheBatch: ("rows_independent", "depends on the other rows"),
    ObservesOverTheBatch: ("rows_independent", "after observe, .* depends on the other rows"),
    AnyFirstForgetsAll: ("rows_independent", "depends on is_first of the other rows"),
    CarryIsTimeFirst: ("indexing", "not that of the rows picked"),
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
    LearnsOutsideItsParts: ("one_part_each", "parameter scale belongs to none of the parts dynamics, decoder"),
    SharesALayer: ("one_part_each", "belongs to the parts dynamics and decoder"),
    LossIsNaNWithoutTargets: ("parts", "without any valid step: loss = nan"),
    HasAnUnusedParameter: ("every_parameter_learns", "parameter unused gets no gradient"),
    SeesNothing: ("views_do_not_leak", "actor view of agent 0 does not change with what it observes"),
    SharesObservations: ("views_do_not_leak", "change with what agent 0 observes"),
    PeeksAtTheState: ("views_do_not_leak", "change with the global state"),
    FillsThePadding: ("padding", "expected zeros"),
    GuessesTheIds: ("padding", "are not the agents' ids"),
    NeverForgets: ("observe_forgets", "depends on what came before"),
    RemembersWhereItSeesNoState: ("observe_forgets", "is_first and no state, .* depends on what came before"),
    AlwaysForgets: ("observe_forgets", "forget as well"),
}
"""Each broken model with the check that must find it, and what the message must say."""
