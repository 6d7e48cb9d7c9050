"""A state inferencer that is learned: auxiliary observation, a conditional generator of states, and their units.

What is learned here is p(s | x) in standardised units; GlobeDiff, the VAE and the MLP differ only in the generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldmodel.config import OptimConfig
from worldmodel.history import segment_history
from worldmodel.inference.auxiliary import AuxiliaryConfig, AuxiliaryObservation
from worldmodel.normalize import RunningNormalizer, absorb
from worldmodel.protocol import Auxiliary, TrainablePart
from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec, LossOutput, Segment, Trajectory


class StateGenerator(Protocol):
    """A conditional law of states; an `nn.Module`. x [B,X] and s [B,S] have mean 0 and std 1."""

    def loss(self, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, averaged over rows, and detached scalars worth logging."""
        ...

    def draw_noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """All chance that samples for so many rows need: [rows, any number]."""
        ...

    def sample(self, x: Tensor, noise: Tensor) -> Tensor:
        """One state [B,S] for each row of x, a function of `noise` [B, ..] from `draw_noise`."""
        ...


class LearnedInference(TrainablePart):
    """Keeps `StateInference`; its own only trainable part, so that whatever fits a world model can fit it."""

    independent = True

    def __init__(
        self, spec: EnvSpec, auxiliary: AuxiliaryObservation, generator: StateGenerator, optim: OptimConfig
    ) -> None:
        """Take `auxiliary` and `generator` (an `nn.Module`) as submodules."""
        super().__init__()
        assert isinstance(generator, nn.Module)
        self.spec = spec
        self.observation = auxiliary
        self.law = generator
        self.state_norm = RunningNormalizer(spec.state_dim, std_floor=auxiliary.config.std_floor)
        self.optim = optim
        self.auxiliary: Auxiliary = auxiliary.config.source
        self.history_steps = auxiliary.config.history_steps
        # The state to infer is the last but one of a segment: the first of an episode is among them that way.
        self.burn_in = self.history_steps
        self.segment_length = self.history_steps + 1

    def parts(self) -> Mapping[str, TrainablePart]:
        """Itself."""
        return {"inference": self}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's observations and states into the running statistics."""
        absorb(trajectory, state=self.state_norm)
        self.observation.update_statistics(trajectory)

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        """The generator's loss on one state a segment, inferred by one agent drawn for it."""
        history = segment_history(segment, self.history_steps)
        rows = history.shape[0]
        agent = torch.randint(self.spec.num_agents, (rows,), generator=generator, device=history.device)
        x = self.observation(history, agent)
        s = self.state_norm.normalize(segment.state[:, self.history_steps])
        loss, metrics = self.law.loss(x, s, generator)
        return LossOutput(loss, {"inference_loss": loss.detach(), **metrics})

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
        """As `StateInference.infer`; the true state is not looked at."""
        self.observation.check(history, agent)
        x = self.observation(history, agent)
        rows = num_samples * x.shape[0]
        noise = self.law.draw_noise(rows, generator)
        s = self.law.sample(x.repeat(num_samples, 1), noise)  # rows: all inputs for the first draw, then the second, ..
        return self.state_norm.denormalize(s).unflatten(0, (num_samples, -1))

    def standardized(self, history: Tensor, state: Tensor, agent: Tensor) -> tuple[Tensor, Tensor]:
        """(x [B,X], s [B,S]) as the generator sees them, for those who measure it."""
        self.observation.check(history, agent)
        check_shape("state", state, "B S", B=history.shape[0], S=self.spec.state_dim)
        return self.observation(history, agent), self.state_norm.normalize(state)


def build_inference(spec: EnvSpec, auxiliary: AuxiliaryConfig, make: Any, optim: OptimConfig) -> LearnedInference:
    """The inferencer around `make(x_dim, state_dim)`, a `StateGenerator`."""
    observation = AuxiliaryObservation(auxiliary, spec)
    return LearnedInference(spec, observation, make(observation.dim, spec.state_dim), optim)
