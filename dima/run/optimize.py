"""One gradient step for any trainable part of a world model.

AdamW with decay on matrix weights only, linear warm-up, gradient clipping, and a finite check that costs no host
synchronisation: a step with a loss or gradient that is not finite is skipped on the device and reported afterwards.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.protocol import TrainablePart
from worldmodel.types import Segment

_DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def split_by_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of `module`: (weights of linear and convolution layers, all others).

    Biases, norms, embeddings and free parameters (such as learned queries) are in the second list, as in the
    published DIAMOND and DIMA optimisers.
    """
    decayed = {id(layer.weight): layer.weight for layer in module.modules() if isinstance(layer, _DECAYED)}
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [p for p in parameters if id(p) in decayed], [p for p in parameters if id(p) not in decayed]


@dataclasses.dataclass(frozen=True)
class LearningRateDecay:
    """A linear fall of the learning rate at the end of a fit whose length is known."""

    final: float
    """What is left of the learning rate at the last update, relative to the first."""
    begin: float
    """Share of the updates after which it begins to fall."""
    updates: int = 0
    """Length of the fit; 0: unknown, and nothing falls."""

    def over(self, updates: int) -> LearningRateDecay:
        """The same for a fit of `updates`."""
        return dataclasses.replace(self, updates=updates)

    def factor(self, update: int) -> float:
        """What `update`, counted from 0, multiplies the learning rate with."""
        first, last = self.begin * self.updates, self.updates - 1
        if update <= first or last <= first:
            return 1.0
        return 1.0 - (1.0 - self.final) * min(1.0, (update - first) / (last - first))


class PartOptimizer:
    """Fits one part: exactly one optimiser step per batch."""

    def __init__(self, name: str, part: TrainablePart, decay: LearningRateDecay | None = None) -> None:
        """Optimise `part` by its own `optim` settings; `name` is used in messages."""
        self._decay = decay
        self.name = name
        self.part = part
        self.updates = 0
        self._config = part.optim
        decayed, plain = split_by_decay(part)
        self._parameters = decayed + plain
        groups = [{"params": decayed, "weight_decay": part.optim.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=part.optim.learning_rate, fused=True)
        self._first_bad_update = torch.full((), -1, dtype=torch.int64, device=self._parameters[0].device)

    def learning_rate(self) -> float:
        """The rate of the next update: rises linearly over `warmup_updates`, the first of which already moves."""
        warmup = self._config.warmup_updates
        factor = 1.0 if self._decay is None else self._decay.factor(self.updates)
        return self._config.learning_rate * min(1.0, (self.updates + 1) / max(warmup, 1)) * factor

    def update(self, segment: Segment, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step on `segment` and return detached metrics by name, `NAME_loss` and `NAME_grad_norm` among them.

        A step whose loss or gradient is not finite leaves the weights as they are; `require_finite` tells of it.
        """
        for group in self._adamw.param_groups:
            group["lr"] = self.learning_rate()
        output = self.part(segment, generator)
        self._adamw.zero_grad(set_to_none=True)
        output.loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self._config.grad_clip)
        is_bad = ~(torch.isfinite(output.loss.detach()) & torch.isfinite(grad_norm))
        # Fused AdamW skips its step on the device where `found_inf` is 1: no host synchronisation for the check.
        self._adamw.found_inf = is_bad.to(torch.float32)  # type: ignore[attr-defined]
        self._adamw.step()
        self.updates += 1
        is_first_bad = is_bad & (self._first_bad_update < 0)
        self._first_bad_update = torch.where(is_first_bad, self.updates, self._first_bad_update)
        return {f"{self.name}_loss": output.loss.detach(), f"{self.name}_grad_norm": grad_norm, **output.metrics}

    def require_finite(self) -> None:
        """Synchronise with the device and refuse to go on when an update since the last load was not finite.

        Raises:
            FloatingPointError: naming the part and its first bad update, counted from 1.
        """
        update = int(self._first_bad_update)
        if update >= 0:
            raise FloatingPointError(
                f"world model part {self.name!r}: loss or gradient is not finite at its update {update}"
                " (that step was not applied); try a smaller learning rate or grad_clip for this part"
            )

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's moments and the number of updates taken."""
        return {"adamw": self._adamw.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._adamw.load_state_dict(copy.deepcopy(state["adamw"]))  # AdamW goes on working in what it loads
        self.updates = state["updates"]
        self._first_bad_update.fill_(-1)
