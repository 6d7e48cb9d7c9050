"""A trained denoiser on a system that jumps one way or the other: it draws both modes, as often as they happen."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from dima.sampler import sample_next_state
from envs.toy.bimodal import BimodalSystem
from tests.learning.fitting import Fitted, draw_next_state, fit_toy

pytestmark = pytest.mark.slow

PAPER = ("num_denoising_steps=4", "sampler.solver=euler")
FINE = ("num_denoising_steps=16", "sampler.solver=heun")


@dataclasses.dataclass(frozen=True)
class Modes:
    """Shares of the samples: nearer to the positive mode, and closer to a mode than a quarter of their distance."""

    positive: float
    close: float


@pytest.fixture(scope="module", params=[("joint", 0), ("joint", 1), ("progressive", 0)], ids=str)
def fitted(request: pytest.FixtureRequest) -> Fitted:
    reveal, seed = request.param
    return fit_toy("bimodal", seed, f"reveal={reveal}", "order=cycle")


@dataclasses.dataclass
class ExactDenoiser:
    """E[s' | x] for a mixture of two Gaussians of equal spread: what perfect training on the joint action gives."""

    mean: Tensor
    """[2,B,S] in the denoiser's units."""
    std: Tensor
    """[S]"""
    weight: Tensor
    """[2]"""
    sigma_data: float = 0.5

    def frozen(self) -> AbstractContextManager[None]:
        """There are no weights to be left alone."""
        return nullcontext()

    def embed_context(self, context: Tensor) -> Tensor:
        """As it is."""
        return context

    def modulation(self, sigma: Tensor, past_action: Tensor, action: Tensor, visible: Tensor, level: Tensor) -> Tensor:
        """Nothing to prepare: [J,B,1]."""
        return torch.zeros(len(sigma), len(action), 1)

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """[B,S]"""
        variance = self.std**2 + sigma**2
        log_odds = (
            -((x - self.mean).square() / variance).sum(dim=-1, keepdim=True) / 2 + self.weight.log()[:, None, None]
        )
        within = self.mean + self.std**2 / variance * (x - self.mean)
        return (log_odds.softmax(dim=0) * within).sum(dim=0)


def classify(drawn: Tensor, means: Tensor) -> Modes:
    """Where the samples [B,S] lie with respect to the modes [2,B,S], the positive one first."""
    distance = (drawn - means).norm(dim=-1) / (means[0] - means[1]).norm(dim=-1)
    return Modes(
        positive=(distance[0] < distance[1]).double().mean().item(),
        close=(distance.amin(dim=0) < 0.25).double().mean().item(),
    )


def draw(fitted: Fitted, sampler: tuple[str, ...]) -> tuple[Modes, Modes, float]:
    """Samples from 4000 contexts: the model's, those of an exact denoiser; and the positive mode's true share."""
    system, model = fitted.env.system, fitted.with_sampler(*sampler)
    assert isinstance(system, BimodalSystem)
    context, action = fitted.contexts(4000, seed=7)
    law = system.mixture(context.state[:, -1].double().numpy(), action.double().numpy())
    means = torch.as_tensor(law.mean)
    exact = ExactDenoiser(
        mean=0.5 * model.state_norm.normalize(means.float()),
        std=0.5 * law.std * model.state_norm.scale,
        weight=torch.as_tensor(law.weight).float(),
    )
    inputs = (context.state, context.action, action, torch.Generator().manual_seed(8))
    perfect = sample_next_state(exact, model.reveal, model.config.sampler, *inputs)
    return (
        classify(draw_next_state(model, context, action, seed=8), means),
        classify(model.state_norm.denormalize(perfect / 0.5).double(), means),
        float(law.weight[0]),
    )


def test_both_modes_are_drawn_in_the_right_proportion(fitted: Fitted) -> None:
    modes, _, weight = draw(fitted, FINE)

    assert modes.positive == pytest.approx(weight, abs=0.1)
    assert modes.close > 0.95, "between the modes there is nothing to predict"


def test_the_papers_four_steps_favour_the_frequent_mode_as_an_exact_denoiser_would(fitted: Fitted) -> None:
    modes, perfect, weight = draw(fitted, PAPER)

    assert perfect.positive > weight + 0.02
    assert modes.positive == pytest.approx(perfect.positive, abs=0.07)
    assert modes.close > 0.7
