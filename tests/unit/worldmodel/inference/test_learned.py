"""Which state is learned from which history, and that rows of the generators' answers stand alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.inference_models import lively_inference
from worldmodel.config import OptimConfig
from worldmodel.inference.auxiliary import AuxiliaryConfig
from worldmodel.inference.learned import LearnedInference, build_inference
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec, Trajectory

SPEC = EnvSpec("count", 2, 1, obs_sizes=(1, 1), action_sizes=(1, 1), episode_steps=20)
OPTIM = OptimConfig(learning_rate=1e-3, weight_decay=0.0, grad_clip=1.0, batch_size=4)


class Recording(nn.Module):
    """A law of states that only writes down what it is taught."""

    def __init__(self) -> None:
        super().__init__()
        self.taught: list[tuple[Tensor, Tensor]] = []

    def loss(self, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.taught.append((x, s))
        return x.new_zeros(()), {}


def counting_episode(number: int, length: int) -> Trajectory:
    """Step t of episode e: the state and what agent 0 observes are 100 e + t, agent 1 observes minus that."""
    count = 100.0 * number + torch.arange(length + 1.0)
    return Trajectory(
        obs=torch.stack([count, -count], dim=1)[:, :, None],
        state=count[:, None],
        action=torch.zeros(length, 2, 1),
        reward=torch.zeros(length),
        terminated=torch.arange(length) == length - 1,
        truncated=torch.zeros(length, dtype=torch.bool),
    )


def filled_replay(lengths: list[int]) -> Replay:
    replay = ReplayConfig(capacity=1000, recency="uniform").build(SPEC, 1, torch.device("cpu"))
    for number, length in enumerate(lengths, start=1):
        replay.append(counting_episode(number, length))
    return replay


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_state_that_is_learned_is_the_one_its_history_led_to(steps: int) -> None:
    law = Recording()
    inference = build_inference(SPEC, AuxiliaryConfig("own", steps, 0.01), lambda x, s: law, OPTIM)
    replay, g = filled_replay([4, 6]), torch.Generator().manual_seed(0)
    for _ in range(40):
        segment = replay.sample(8, inference.segment_length, burn_in=inference.burn_in, generator=g)
        inference(segment, g)
    x = torch.cat([x for x, _ in law.taught])
    s = torch.cat([s for _, s in law.taught])[:, 0]
    agent = x[:, -2:].argmax(dim=1)
    assert set(agent.tolist()) == {0, 1}
    present = torch.where(agent == 0, 1.0, -1.0) * s
    assert torch.equal(x[:, steps], present), "the last observation is that of the state itself"
    for ago in range(steps + 1):
        start = 100 * (s // 100)
        then = torch.maximum(s - ago, start)  # before the start, the first observation stands
        assert torch.equal(x[:, steps - ago], torch.where(agent == 0, then, -then))
    assert set(s.tolist()) == {*range(100, 104), *range(200, 206)}, "every state but an episode's last is learned"


@pytest.fixture(params=["globediff", "mlp", "vae"])
def inference(request: pytest.FixtureRequest) -> LearnedInference:
    spec = EnvSpec("test", 2, 5, (4, 3), (1, 1), 20, appends_agent_id=True)
    return lively_inference(spec, request.param)


def law_of(inference: LearnedInference) -> Any:
    return inference.law


@torch.no_grad()
def test_a_row_alone_is_inferred_as_among_others(inference: LearnedInference) -> None:
    law, g = law_of(inference), torch.Generator().manual_seed(1)
    x = torch.randn(6, inference.observation.dim, generator=g)
    noise = law.draw_noise(6, g)
    whole = law.sample(x, noise)
    for row in range(6):
        alone = law.sample(x[row : row + 1], noise[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_draws_of_one_row_use_that_rows_observations(inference: LearnedInference) -> None:
    law, g = law_of(inference), torch.Generator().manual_seed(1)
    history = torch.randn(3, 4, 2, inference.spec.obs_dim, generator=g)
    agent = torch.tensor([0, 1, 0])
    drawn = inference.infer(history, num_samples=2, generator=torch.Generator().manual_seed(7), agent=agent)
    noise = law.draw_noise(6, torch.Generator().manual_seed(7))
    x = inference.observation(history, agent)
    for draw in range(2):
        rows = slice(3 * draw, 3 * draw + 3)
        expected = inference.state_norm.denormalize(law.sample(x, noise[rows]))
        torch.testing.assert_close(drawn[draw], expected, rtol=1e-3, atol=1e-3)


def test_double_precision_gives_the_same_states(inference: LearnedInference) -> None:
    law, g = law_of(inference), torch.Generator().manual_seed(1)
    x, noise = torch.randn(4, inference.observation.dim, generator=g), law.draw_noise(4, g)
    with torch.no_grad():
        single = law.sample(x, noise)
        double = law.double().sample(x.double(), noise.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-3)
