"""A small state inferencer that keeps the contract, and one for each way of breaking it.

They prove that the checks can fail: each differs from the sound one in the one thing it is named after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.config import OptimConfig
from worldmodel.inference.auxiliary import AuxiliaryConfig, AuxiliaryObservation
from worldmodel.protocol import Auxiliary, TrainablePart
from worldmodel.types import EnvSpec, LossOutput, Segment, Trajectory


class SoundInference(TrainablePart):
    """A linear mean of an agent's last two observations, and noise."""

    auxiliary: Auxiliary = "own"
    history_steps = 1
    segment_length = 2
    burn_in = 1
    optim = OptimConfig(learning_rate=1e-3, weight_decay=0.0, grad_clip=1.0, batch_size=4)

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.spec = spec
        self.observation = AuxiliaryObservation(AuxiliaryConfig("own", 1, 0.01), spec)
        self.linear = nn.Linear(self.observation.dim, spec.state_dim)

    def parts(self) -> Mapping[str, TrainablePart]:
        return {"inference": self}

    def update_statistics(self, trajectory: Trajectory) -> None:
        self.observation.update_statistics(trajectory)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        agent = torch.randint(self.spec.num_agents, (len(segment.obs),), generator=generator)
        error = self.linear(self.observation(segment.obs[:, :2], agent)) - segment.state[:, 1]
        return LossOutput(error.square().mean(), {})

    @torch.no_grad()
    def infer(
        self,
        history: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
        agent: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        self.observation.check(history, agent)
        mean = self.linear(self.features(history, agent))
        return mean + torch.randn(num_samples, *mean.shape, generator=generator)

    def features(self, history: Tensor, agent: Tensor | None) -> Tensor:
        return self.observation(history, agent)


class AnswerOfWrongShape(SoundInference):
    def infer(self, history: Tensor, *, num_samples: int, **others: Any) -> Tensor:
        return super().infer(history, num_samples=num_samples, **others).transpose(0, 1)


class AnswerInDoublePrecision(SoundInference):
    def infer(self, history: Tensor, *, num_samples: int, **others: Any) -> Tensor:
        return super().infer(history, num_samples=num_samples, **others).double()


class IgnoresTheGenerator(SoundInference):
    def infer(self, history: Tensor, *, generator: torch.Generator, **others: Any) -> Tensor:
        return super().infer(history, generator=torch.Generator().manual_seed(0), **others)


class DrawsFromTheDefaultGenerator(SoundInference):
    def infer(self, history: Tensor, *, num_samples: int, **others: Any) -> Tensor:
        answer = super().infer(history, num_samples=num_samples, **others)
        return answer + torch.randn(answer.shape)


class RepeatsItsDraw(SoundInference):
    def infer(self, history: Tensor, *, num_samples: int, **others: Any) -> Tensor:
        return super().infer(history, num_samples=1, **others).expand(num_samples, -1, -1)


class NormalizesOverTheBatch(SoundInference):
    def features(self, history: Tensor, agent: Tensor | None) -> Tensor:
        return super().features(history - history.mean(dim=0), agent)


class PeeksAtOthers(SoundInference):
    def features(self, history: Tensor, agent: Tensor | None) -> Tensor:
        return super().features(history, agent) + 1e-6 * history.sum(dim=(1, 2, 3))[:, None]


class SeesNothing(SoundInference):
    def features(self, history: Tensor, agent: Tensor | None) -> Tensor:
        return super().features(history, agent) * 0 + history[:, 0, 0, :1].round(decimals=-9)


class PeeksAtTheState(SoundInference):
    def infer(self, history: Tensor, *, state: Tensor | None = None, **others: Any) -> Tensor:
        answer = super().infer(history, state=state, **others)
        return answer if state is None else answer + 1e-6 * state


class ChangesTheHistory(SoundInference):
    def features(self, history: Tensor, agent: Tensor | None) -> Tensor:
        return super().features(history.mul_(0.5), agent)


class ChangesTheSegment(SoundInference):
    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        segment.state.mul_(0.5)
        return super().forward(segment, generator)


class CountsItsCalls(SoundInference):
    """Keeps a number between calls."""

    calls = 0

    def infer(self, history: Tensor, **others: Any) -> Tensor:
        self.calls += 1
        return super().infer(history, **others) + self.calls


class TakesWhateverComes(SoundInference):
    def infer(self, history: Tensor, **others: Any) -> Tensor:
        self.observation.check = lambda history, agent: None  # type: ignore[method-assign]
        return super().infer(history.nan_to_num(posinf=0.0)[:, -2:], **others)


class BlamesNobody(SoundInference):
    def infer(self, history: Tensor, **others: Any) -> Tensor:
        if not torch.isfinite(history).all():
            raise FloatingPointError("something is not finite")
        return super().infer(history, **others)


class ForgetsItsStatisticsOnSave(SoundInference):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        del self.observation.norm.shift
        self.observation.norm.register_buffer("shift", torch.zeros(self.observation.norm.mean.shape), persistent=False)


class HasAnUnusedParameter(SoundInference):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.unused = nn.Parameter(torch.zeros(3))


class LossDrawsFromTheDefaultGenerator(SoundInference):
    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        output = super().forward(segment, generator)
        return LossOutput(output.loss * torch.rand(()), {})


BROKEN: dict[type[SoundInference], tuple[str, str]] = {
    AnswerOfWrongShape: ("shapes", "the answer has shape"),
    AnswerInDoublePrecision: ("shapes", "torch.float64"),
    IgnoresTheGenerator: ("generator", "another seed gives the same answer"),
    DrawsFromTheDefaultGenerator: ("generator", "default generator"),
    RepeatsItsDraw: ("generator", "two draws are the same"),
    NormalizesOverTheBatch: ("rows_independent", "depends on the other rows"),
    PeeksAtOthers: ("others_unseen", "change with what agent 0 observes"),
    SeesNothing: ("others_unseen", "no answer changes with what agent 0 observes"),
    PeeksAtTheState: ("state_unseen", "changes with the true state"),
    ChangesTheHistory: ("inputs_untouched", "history was changed"),
    ChangesTheSegment: ("inputs_untouched", "segment of inference: state was changed"),
    CountsItsCalls: ("nothing_hidden", "another after other calls"),
    TakesWhateverComes: ("refusals", "a history that is too long is not refused"),
    BlamesNobody: ("refusals", "does not say 'history"),
    ForgetsItsStatisticsOnSave: ("save_and_load", "not in the state dict"),
    HasAnUnusedParameter: ("learns", "parameter unused gets no gradient"),
    LossDrawsFromTheDefaultGenerator: ("learns", "default generator"),
}
"""Each broken inferencer with the check that must find it, and what the message must say."""
