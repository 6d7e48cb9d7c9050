"""One optimiser step: what is decayed, how it warms up, and what happens to a step that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dima.run.optimize import LearningRateDecay, PartOptimizer, split_by_decay
from worldmodel.config import OptimConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import LossOutput, Segment

GENERATOR = torch.Generator()


def make_segment(state: Tensor) -> Segment:
    """A batch of one-step windows whose first states are `state` [B,S]."""
    batch = state.shape[0]
    steps = torch.stack([state, state], dim=1)
    yes = torch.ones(batch, 1, dtype=torch.bool)
    return Segment(steps[:, :, None], steps, torch.zeros(batch, 1, 1, 1), torch.zeros(batch, 1), ~yes, yes)


class Quadratic(TrainablePart):
    """loss = mean (w x + b + free)^2."""

    segment_length = 1
    burn_in = 0

    def __init__(self, **changes: float) -> None:
        super().__init__()
        settings = {"learning_rate": 0.1, "weight_decay": 0.5, "grad_clip": 1e6, "batch_size": 4} | changes
        self.optim = OptimConfig(**settings)  # type: ignore[arg-type]
        self.linear = nn.Linear(3, 1)
        self.free = nn.Parameter(torch.ones(1))

    def forward(self, segment: Segment, generator: torch.Generator) -> LossOutput:
        loss = (self.linear(segment.state[:, 0]) + self.free).square().mean()
        return LossOutput(loss, {"size": loss.detach().sqrt()})


def weights(part: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in part.parameters()]


def test_only_matrix_weights_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1), nn.LayerNorm(2), nn.Embedding(3, 2), nn.PReLU())
    module[0].bias.requires_grad_(False)
    decayed, plain = split_by_decay(module)
    assert {id(p) for p in decayed} == {id(module[0].weight), id(module[1].weight)}
    assert len(plain) == len(list(module.parameters())) - 3  # the two decayed ones and the frozen bias
    assert all(p.requires_grad for p in plain)


def test_a_step_equals_adamw_by_hand() -> None:
    part = Quadratic()
    state = torch.randn(4, 3)
    before = {name: p.detach().clone() for name, p in part.named_parameters()}
    part(make_segment(state), GENERATOR).loss.backward()
    gradients = {name: p.grad.clone() for name, p in part.named_parameters() if p.grad is not None}
    PartOptimizer("part", part).update(make_segment(state), GENERATOR)
    for name, parameter in part.named_parameters():
        decay = 0.5 if name == "linear.weight" else 0.0
        step = gradients[name] / (gradients[name].abs() + 1e-8)  # Adam's first step, bias-corrected
        expected = before[name] * (1 - 0.1 * decay) - 0.1 * step
        torch.testing.assert_close(parameter.detach(), expected)


def test_the_gradient_is_clipped() -> None:
    part = Quadratic(grad_clip=0.25)
    metrics = PartOptimizer("part", part).update(make_segment(10 * torch.randn(4, 3)), GENERATOR)
    norm = torch.sqrt(sum(((p.grad**2).sum() for p in part.parameters() if p.grad is not None), torch.zeros(())))
    assert metrics["part_grad_norm"] > 1
    torch.testing.assert_close(norm, torch.tensor(0.25), rtol=1e-4, atol=0)


def test_the_learning_rate_warms_up() -> None:
    optimizer = PartOptimizer("part", Quadratic(warmup_updates=4))
    rates = []
    for _ in range(6):
        rates.append(optimizer.learning_rate())
        optimizer.update(make_segment(torch.randn(4, 3)), GENERATOR)
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_learning_rate_falls_to_its_last_share() -> None:
    decay = LearningRateDecay(final=0.2, begin=0.5).over(11)  # 0..5 at full rate, 10 is the last
    factors = [decay.factor(update) for update in range(11)]
    # 5.5 updates are the first half; from there it falls by 0.8 over the 4.5 to the last
    expected = [1.0] * 6 + [1 - 0.8 * (update - 5.5) / 4.5 for update in range(6, 11)]
    assert factors == pytest.approx(expected)
    assert factors[-1] == pytest.approx(0.2)
    assert decay.factor(50) == pytest.approx(0.2), "it stays there"


@pytest.mark.parametrize(
    ("decay", "factors"),
    [
        (LearningRateDecay(0.1, 0.0), {0: 1.0}),  # of unknown length: nothing falls
        (LearningRateDecay(0.1, 1.0).over(4), {0: 1.0, 3: 1.0}),
        (LearningRateDecay(1.0, 0.0).over(4), {0: 1.0, 3: 1.0}),
        (LearningRateDecay(0.1, 0.0).over(4), {0: 1.0, 1: 0.7, 2: 0.4, 3: 0.1}),
        (LearningRateDecay(0.1, 0.5).over(1), {0: 1.0}),
        (LearningRateDecay(0.1, 0.0).over(0), {0: 1.0}),
    ],
)
def test_the_ends_of_the_fall(decay: LearningRateDecay, factors: dict[int, float]) -> None:
    assert {update: decay.factor(update) for update in factors} == pytest.approx(factors)


def test_warm_up_and_fall_are_multiplied() -> None:
    optimizer = PartOptimizer("part", Quadratic(warmup_updates=2), LearningRateDecay(0.25, 0.0).over(4))
    rates = []
    for _ in range(4):
        rates.append(optimizer.learning_rate())
        optimizer.update(make_segment(torch.randn(4, 3)), GENERATOR)
    assert rates == pytest.approx([0.05, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_step_is_not_applied_and_is_named(bad: float) -> None:
    part = Quadratic()
    optimizer = PartOptimizer("denoiser", part)
    optimizer.update(make_segment(torch.randn(4, 3)), GENERATOR)
    before = weights(part)
    poisoned = torch.randn(4, 3)
    poisoned[2, 1] = bad
    optimizer.update(make_segment(poisoned), GENERATOR)
    assert all(map(torch.equal, before, weights(part)))
    optimizer.update(make_segment(torch.randn(4, 3)), GENERATOR)
    assert all(bool(torch.isfinite(w).all()) for w in weights(part))
    with pytest.raises(FloatingPointError, match="'denoiser': loss or gradient is not finite at its update 2 "):
        optimizer.require_finite()


def test_its_state_goes_on_to_the_same_bits_and_is_a_copy() -> None:
    states = [torch.randn(4, 3) for _ in range(4)]
    first, second = Quadratic(), Quadratic()
    ahead = PartOptimizer("part", first)
    for state in states[:2]:
        ahead.update(make_segment(state), GENERATOR)
    second.load_state_dict(first.state_dict())
    behind = PartOptimizer("part", second)
    behind.load_state_dict(ahead.state_dict())
    for optimizer in (ahead, behind):
        for state in states[2:]:
            optimizer.update(make_segment(state), GENERATOR)
    assert all(map(torch.equal, weights(first), weights(second)))
    assert ahead.updates == behind.updates == 4
