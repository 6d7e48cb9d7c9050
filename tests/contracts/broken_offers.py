"""Ways of breaking what a model offers beyond the contract; `broken_world_models` says which check finds them."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from tests.contracts.sound_world_model import SoundModel
from worldmodel.types import Prediction


class DecodesToStates(SoundModel):
    def decode_states(self, state: Tensor) -> Tensor:
        return state


class KnowsAnOrder(SoundModel):
    """Takes any order, which makes no difference to it; `blind` hides the action."""

    blind = False

    def with_order(self, order: Any) -> Any:
        return copy.copy(self)

    def without_actions(self) -> Any:
        model = copy.copy(self)
        model.blind = True
        return model

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        return super().step(state, action * (not self.blind), generator=generator)


class OrdersToNothing(KnowsAnOrder):
    def with_order(self, order: Any) -> Any:
        return None


class OrdersToWrongShapes(KnowsAnOrder):
    def with_order(self, order: Any) -> Any:
        model = super().with_order(order)
        model.critic_dim += 1
        return model


class BlindsItself(KnowsAnOrder):
    def without_actions(self) -> Any:
        self.blind = True
        return self


class IsNotBlind(KnowsAnOrder):
    def without_actions(self) -> Any:
        return copy.copy(self)


class KnowsOrdersAlone(SoundModel):
    def with_order(self, order: Any) -> Any:
        return self


class FastWithoutReward(SoundModel):
    slow = True

    def accelerated(self, precision: str = "float32", *, compiled: bool = False) -> Any:
        model = copy.copy(self)
        model.slow = False
        return model

    def step(self, state: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Any, Prediction]:
        state, prediction = super().step(state, action, generator=generator)
        return state, prediction if self.slow else dataclasses.replace(prediction, reward=prediction.obs)
