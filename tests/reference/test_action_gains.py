"""How much of each agent's action reaches the next state when noise levels see one agent at a time.

s' = b * sum_i a_i with independent unit-normal a_i, denoised by the exact posterior mean. The truth is a gain of 1 for
every agent. Expected values were computed apart from this code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.reveal import ActionReveal, Order, Reveal
from dima.sampler import SamplerConfig, sample_next_state
from tests.support.gaussian_team import GaussianTeam

TOLERANCE = 0.011
"""Expected values have two decimals."""
CONFIG = SamplerConfig(solver="euler", sigma_min=0.002, sigma_max=5.0, rho=7.0, initial_noise=1.0)
UNIT_START: dict[str, Any] = {"initial_noise": 0.2, "offset": 0.0}
"""The walk starts from unit noise (DIAMOND's), nothing is added in training."""
PUBLISHED: dict[str, Any] = {"initial_noise": 1.0, "offset": 0.3}
"""The authors' published code: starts from sigma_max, and its factors never see noise below 0.3."""


@dataclasses.dataclass
class Gains:
    """Of each agent; the root mean squared error of s' in units of its conditional standard deviation; and the variance
    given all actions."""

    agents: list[float]
    relative_rmse: float
    variance: float


def measure(
    num_agents: int,
    conditional_std: float,
    order: Order,
    *,
    reveal: Reveal = "one",
    steps: int | None = None,
    explained: float = 1.0,
    initial_noise: float = 1.0,
    offset: float,
    **settings: Any,
) -> Gains:
    """Perturb each agent's action under the same noise; all is linear, so this is the regression gain too."""
    team = GaussianTeam.alike(num_agents, conditional_std, explained, offset_noise=offset)
    config = dataclasses.replace(CONFIG, initial_noise=initial_noise, **settings)
    steps = steps or max(num_agents, 4)
    schedule = ActionReveal(reveal, order, num_agents, config.ladder(steps), config.num_reveal_steps(steps))
    rows = 40_000
    action = torch.randn(rows, num_agents, 1, generator=torch.Generator().manual_seed(1))

    def draw(joint: Tensor) -> Tensor:
        nothing = torch.zeros(rows, 1, 1), torch.zeros(rows, 0, num_agents, 1)
        generator = torch.Generator().manual_seed(2)
        return sample_next_state(team, schedule, config, *nothing, joint, generator)[:, 0]

    base, gains = draw(action), []
    for agent in range(num_agents):
        pushed = action.clone()
        pushed[:, agent] += 1
        gains.append(((draw(pushed) - base) / team.gain[agent]).mean().item())
    truth = action[..., 0] @ team.gain
    rmse = (base - truth).square().mean().sqrt() / (0.5 * conditional_std)
    return Gains(gains, rmse.item(), draw(0 * action).var().item())


def assert_gains(measured: Gains, agents: list[float], relative_rmse: float | None = None) -> None:
    assert measured.agents == pytest.approx(agents, abs=TOLERANCE)
    if relative_rmse is not None:
        assert measured.relative_rmse == pytest.approx(relative_rmse, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("conditional_std", "order", "agents", "relative_rmse"),
    [
        (1.0, (1, 1, 2, 2), [0.91, 0.04], 0.68),
        (1.0, (2, 1, 1, 2), [0.78, 0.18], 0.60),
        (0.3, (2, 1, 1, 2), [0.93, 0.06], 0.67),
        (1.0, (1, 2, 1, 2), [0.22, 0.73], 0.58),
        (0.3, (1, 2, 1, 2), [0.40, 0.59], 0.52),
        (0.3, (1, 1, 2, 2), [0.65, 0.34], 0.54),
        (0.1, (1, 1, 2, 2), [0.19, 0.81], 0.59),
    ],
)
def test_one_agent_a_level_from_unit_noise(
    conditional_std: float, order: Order, agents: list[float], relative_rmse: float
) -> None:
    assert_gains(measure(2, conditional_std, order, **UNIT_START), agents, relative_rmse)


def test_six_agents_from_unit_noise() -> None:
    measured = measure(6, 0.3, "ascending", **UNIT_START)

    assert_gains(measured, [0.03, 0.12, 0.41, 0.40, 0.03, 0.00], 0.87)


def test_offset_noise_turns_the_weights_round() -> None:
    measured = measure(2, 1.0, (1, 1, 2, 2), initial_noise=0.2, offset=0.3)

    assert_gains(measured, [0.32, 0.66], 0.53)


@pytest.mark.parametrize(
    ("num_agents", "conditional_std", "agents", "relative_rmse"),
    [
        (2, 1.0, [0.66, 0.32], 0.55),
        (2, 0.3, [0.99, 0.01], 0.70),
        (2, 0.1, [1.00, 0.00], 0.71),
        (4, 1.0, [0.32, 0.22, 0.33, 0.10], 0.79),
        (4, 0.3, [0.84, 0.13, 0.02, 0.00], 0.83),
        (4, 0.1, [0.98, 0.02, 0.00, 0.00], 0.86),
        (6, 1.0, [0.30, 0.19, 0.14, 0.18, 0.12, 0.04], 0.87),
        (6, 0.3, [0.83, 0.13, 0.03, 0.01, 0.00, 0.00], 0.89),
        (6, 0.1, [0.98, 0.02, 0.00, 0.00, 0.00, 0.00], 0.91),
    ],
)
def test_one_agent_a_level_with_the_published_numbers(
    num_agents: int, conditional_std: float, agents: list[float], relative_rmse: float
) -> None:
    assert_gains(measure(num_agents, conditional_std, "descending", **PUBLISHED), agents, relative_rmse)


@pytest.mark.parametrize(
    ("conditional_std", "agents", "relative_rmse"),
    [(1.0, [0.04, 0.92], 0.78), (0.3, [0.34, 0.65], 0.66), (0.1, [0.81, 0.19], 0.66)],
)
def test_published_numbers_without_offset_noise(
    conditional_std: float, agents: list[float], relative_rmse: float
) -> None:
    measured = measure(2, conditional_std, "descending", initial_noise=1.0, offset=0.0)

    assert_gains(measured, agents, relative_rmse)


@pytest.mark.parametrize("num_agents", [2, 4, 6])
@pytest.mark.parametrize("conditional_std", [1.0, 0.3, 0.1])
def test_the_joint_action_gives_every_agent_its_due(num_agents: int, conditional_std: float) -> None:
    measured = measure(num_agents, conditional_std, "descending", reveal="joint", **PUBLISHED)

    assert measured.agents == pytest.approx([1.0] * num_agents, abs=1e-4)
    assert measured.relative_rmse == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("num_agents", "steps", "order", "agents"),
    [
        (2, 4, "cycle", [0.96, 0.78]),
        (2, 4, "descending", [0.04, 0.95]),
        (4, 4, "cycle", [0.95, 0.73, 0.04, 0.00]),
        (4, 8, "cycle", [0.94, 0.88, 0.76, 0.49]),
        (4, 8, "descending", [0.00, 0.12, 0.72, 0.93]),
    ],
)
def test_keeping_what_was_revealed_needs_an_order_that_shows_everybody_early(
    num_agents: int, steps: int, order: Order, agents: list[float]
) -> None:
    """Half of the variance of s' is noise: who is shown once the noise level is below it comes too late."""
    measured = measure(
        num_agents, 1.0, order, reveal="cumulative", steps=steps, explained=0.5, initial_noise=1.0, offset=0.0
    )

    assert_gains(measured, agents)


@pytest.mark.parametrize(
    ("num_agents", "steps", "settings", "agents", "kept"),
    [
        (2, 4, {}, [0.957, 0.893], 0.372),
        (2, 4, {"keep_noise": True}, [1.0, 0.981], 0.385),
        (2, 4, {"keep_noise": True, "solver": "multistep"}, [1.0, 0.989], 0.793),
        (6, 8, {"keep_noise": True, "solver": "multistep"}, [1.0, 1.0, 1.0, 1.0, 1.0, 0.989], 0.794),
        (
            6,
            6,
            {"keep_noise": True, "solver": "multistep", "reveal_sigma": 1.0, "num_refine_steps": 3},
            [1.0, 1.0, 0.999, 0.999, 0.958, 0.958],
            1.119,
        ),
        (3, 5, {"keep_noise": True, "solver": "heun", "reveal_sigma": 0.5}, [1.0, 0.983, 0.684], 0.724),
    ],
)
def test_everybody_shown_above_the_noise_gets_their_due(
    num_agents: int, steps: int, settings: dict[str, Any], agents: list[float], kept: float
) -> None:
    """Half of the variance of s' is noise, as above. Keeping the noise makes up for what late showing still loses."""
    settings = {"sigma_min": 0.02, "reveal_sigma": 2.0} | settings
    measured = measure(
        num_agents, 1.0, "cycle", reveal="progressive", steps=steps, explained=0.5, offset=0.0, **settings
    )

    assert_gains(measured, agents)
    assert measured.variance / (0.5 * 0.5**2) == pytest.approx(kept, rel=0.03)  # 40 000 draws
