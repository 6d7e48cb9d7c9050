"""Ways of breaking the contract in what is trained and saved; `broken_world_models` says which check finds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.contracts.sound_world_model import Dynamics, SoundModel
from worldmodel.protocol import TrainablePart
from worldmodel.types import EnvSpec, LossOutput, Segment


class ForgetsItsStatisticsOnSave(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        del self.mean
        self.register_buffer("mean", torch.zeros(spec.state_dim), persistent=False)


class CountingDynamics(Dynamics):
    """Its loss counts less with every update: a schedule that belongs into a buffer."""

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


class HasAnUnusedModule(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics.unused = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


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


class SharesALayerWithIndependent(SharesALayer):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.decoder.independent = True


class ForgetsAPart(SoundModel):
    def parts(self) -> Mapping[str, TrainablePart]:
        return {"dynamics": self.dynamics}


class LoggingDynamics(Dynamics):
    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        return LossOutput(super().forward(segment, generator).loss, {"mse": 0.5})  # type: ignore[dict-item]


class LogsAFloat(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics = LoggingDynamics(spec)


class DynamicsWithoutGenerator(Dynamics):
    def forward(self, segment: Segment) -> LossOutput:  # type: ignore[override]
        raise NotImplementedError


class TakesNoGenerator(SoundModel):
    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(spec)
        self.dynamics = DynamicsWithoutGenerator(spec)


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
