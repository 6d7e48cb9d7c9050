"""Episodes side by side count like episodes one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dima.run.evaluation import Evaluator, play_episodes
from envs.base import EnvError
from envs.vector import SeparateEnvs
from tests.support.point_team import PointTeam, PointTeamConfig

SEEDS = [3, 14, 15, 92, 65]


class PullAgent:
    """Pushes against what each agent sees; remembers nothing and checks that first steps are marked."""

    def __init__(self) -> None:
        self.firsts: list[list[bool]] = []

    def begin(self, obs: Tensor, state: Tensor) -> None:
        pass

    def act(self, carry: None, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, None]:
        self.firsts.append(is_first.tolist())
        return -obs[..., :1].clamp(-1, 1), None


def returns_by_hand(seed: int) -> float:
    env = PointTeam(PointTeamConfig())
    obs, _ = env.reset(seed)
    total = 0.0
    while True:
        result = env.step(-obs[:, :1].clip(-1, 1))
        obs, total = result.obs, total + result.reward
        if result.terminated or result.truncated:
            return total


@pytest.mark.parametrize("num_envs", [1, 2, 9])
def test_returns_equal_a_plain_loop_whatever_the_batch(num_envs: int) -> None:
    evaluator = Evaluator(PointTeamConfig(), SEEDS, num_envs)
    assert evaluator.play(PullAgent()) == pytest.approx([returns_by_hand(seed) for seed in SEEDS], rel=1e-6)
    evaluator.close()


def test_episodes_of_unequal_length_end_each_at_its_own_time() -> None:
    envs = [PointTeam(PointTeamConfig(episode_steps=steps)) for steps in (4, 9)]
    agent, steps = PullAgent(), []
    play_episodes(SeparateEnvs(envs), agent, [0, 0], on_step=lambda: steps.append(1))
    assert [env._steps_in_all for env in envs] == [4, 9]
    assert len(steps) == 10
    assert agent.firsts == [[True, True]] + 8 * [[False, False]]


@pytest.mark.parametrize("fault", ["not_finite", "shape", "dtype", "reward"])
def test_a_faulty_environment_is_named(fault: str) -> None:
    env = PointTeamConfig(fault=fault, fault_at=2).build()  # type: ignore[arg-type]
    with pytest.raises(EnvError, match="test/point-team.*seed"):
        play_episodes(SeparateEnvs([env]), PullAgent(), [7])


def test_torch_s_own_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    Evaluator(PointTeamConfig(), SEEDS, 2).play(PullAgent())
    assert torch.equal(before, torch.get_rng_state())
