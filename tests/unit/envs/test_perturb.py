"""True changes: what a recorded moment would have become under other actions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from envs.base import EnvError, RestorableEnv
from envs.collector import Collector
from envs.mamujoco import MamujocoConfig
from envs.perturb import perturb_one_agent, try_actions
from envs.random_agent import RandomAgent
from envs.toy.linear import LinearSystem
from tests.support.toy_systems import linear_config
from worldmodel.types import EnvSpec, Trajectory

LINEAR = linear_config(episode_steps=12)
CHEETAH = MamujocoConfig(
    scenario="HalfCheetah",
    partition="2x3",
    joints=None,
    obs_mode="full",
    agent_obsk=0,
    standardize_obs=False,
    episode_steps=12,
    contact_forces=True,
    render_width=64,
    render_height=64,
)
UNEQUAL = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def record(config: Any, num_episodes: int = 3) -> list[Trajectory]:
    collector = Collector(config, 1, seed=0)
    return collector.collect(RandomAgent(collector.spec, seeded(0)), num_episodes=num_episodes)


def variants(spec: EnvSpec, episodes: list[Trajectory], episode: Tensor, start: Tensor) -> Tensor:
    recorded = torch.stack([episodes[e].action[s] for e, s in zip(episode.tolist(), start.tolist(), strict=True)])
    return perturb_one_agent(recorded, spec, perturbation_std=0.3, generator=seeded(1))


EPISODE, START = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 7, 11, 0, 3])


def test_true_changes_of_the_linear_system_are_its_gains_times_the_actions_changes() -> None:
    episodes, env, system = record(LINEAR), LINEAR.build(), LinearSystem(LINEAR)
    actions = variants(env.spec, episodes, EPISODE, START)
    reached = try_actions(env, episodes, episode=EPISODE, start=START, actions=actions)
    assert (reached.shape, reached.dtype) == ((5, 4, 4), torch.float32)
    for row, (e, s) in enumerate(zip(EPISODE.tolist(), START.tolist(), strict=True)):
        assert torch.equal(reached[row, 0], episodes[e].state[s + 1])
        for agent in range(3):
            moved = system.action_gain(agent) @ (actions[row, 1 + agent, agent] - actions[row, 0, agent]).numpy()
            np.testing.assert_allclose(reached[row, 1 + agent] - reached[row, 0], moved, atol=1e-6)


@pytest.mark.mujoco
def test_true_changes_of_a_body_are_those_of_an_episode_that_took_the_other_action() -> None:
    episodes, env = record(CHEETAH), CHEETAH.build()
    actions = variants(env.spec, episodes, EPISODE, START)
    reached = try_actions(env, episodes, episode=EPISODE, start=START, actions=actions)
    other = CHEETAH.build()
    for row, (e, s) in enumerate(zip(EPISODE.tolist(), START.tolist(), strict=True)):
        for variant, action in enumerate(actions[row].numpy()):
            other.reset(episodes[e].seed)
            for recorded in episodes[e].action[:s].numpy():
                other.step(recorded)
            np.testing.assert_array_equal(reached[row, variant], other.step(action).state)


def test_places_may_come_in_any_order() -> None:
    episodes, env = record(LINEAR), LINEAR.build()
    actions = variants(env.spec, episodes, EPISODE, START)
    sorted_ = try_actions(env, episodes, episode=EPISODE, start=START, actions=actions)
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = try_actions(env, episodes, episode=EPISODE[order], start=START[order], actions=actions[order])
    assert torch.equal(shuffled, sorted_[order])


def test_a_simulator_that_does_not_repeat_the_recording_is_named_with_the_place() -> None:
    episodes = record(LINEAR)
    other = dataclasses.replace(LINEAR, gain=0.50001).build()
    assert isinstance(other, RestorableEnv)
    actions = variants(other.spec, episodes, EPISODE, START)
    message = r"toy/linear-3x2 does not repeat the recording: 1 steps into episode 0 \(seed \d+\), state\[\d\] is .*"
    with pytest.raises(EnvError, match=message + "no versions given"):
        try_actions(other, episodes, episode=EPISODE, start=START, actions=actions)


def test_another_seed_is_noticed_before_the_first_step() -> None:
    episodes = [dataclasses.replace(episode, seed=episode.seed + 1) for episode in record(LINEAR)]
    env = LINEAR.build()
    with pytest.raises(EnvError, match="does not repeat the recording: 0 steps into episode 0"):
        try_actions(env, episodes, episode=EPISODE, start=START, actions=variants(env.spec, episodes, EPISODE, START))


def test_an_episode_that_ends_earlier_than_recorded_is_noticed() -> None:
    episodes = record(LINEAR)
    env = dataclasses.replace(LINEAR, episode_steps=6).build()
    actions = variants(env.spec, episodes, EPISODE, START)
    with pytest.raises(EnvError, match="6 steps into episode 0 .* it ended, though the recorded one has 12 steps"):
        try_actions(env, episodes, episode=EPISODE, start=START, actions=actions)


@pytest.mark.parametrize(
    ("episode", "start", "message"),
    [(3, 0, "no step 0 in episode 3 of 3"), (0, 12, "no step 12 in episode 0"), (0, 5, "not the action recorded")],
)
def test_places_and_actions_that_were_not_recorded_are_refused(episode: int, start: int, message: str) -> None:
    episodes, env = record(LINEAR), LINEAR.build()
    actions = variants(env.spec, episodes, torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ValueError, match=message):
        try_actions(env, episodes, episode=torch.tensor([episode]), start=torch.tensor([start]), actions=actions)


@given(seed=st.integers(0, 10_000), std=st.floats(0.01, 3.0))
def test_each_variant_changes_one_agent_within_the_range(seed: int, std: float) -> None:
    recorded = (2 * torch.rand(6, 3, 3, generator=seeded(seed)) - 1) * UNEQUAL.action_mask()
    actions = perturb_one_agent(recorded, UNEQUAL, perturbation_std=std, generator=seeded(seed + 1))
    assert torch.equal(actions[:, 0], recorded)
    assert actions.abs().max() <= 1
    assert not actions[:, :, ~UNEQUAL.action_mask()].any()
    changed = (actions[:, 1:] != recorded[:, None]).any(dim=-1)  # [B, variant, agent]
    assert torch.equal(changed, torch.eye(3, dtype=torch.bool).expand(6, -1, -1))


def test_perturbations_have_the_deviation_asked_for() -> None:
    recorded = torch.zeros(20_000, 3, 3)
    actions = perturb_one_agent(recorded, UNEQUAL, perturbation_std=0.2, generator=seeded(0))
    drawn = actions[:, 2, 1]  # agent 1 has three actions; 0.2 is five deviations from the bound
    np.testing.assert_allclose(drawn.mean(0), 0.0, atol=5 * 0.2 / 20_000**0.5)
    np.testing.assert_allclose(np.cov(drawn.T.numpy()), 0.04 * np.eye(3), atol=5 * 0.04 * (2 / 20_000) ** 0.5)


def test_no_perturbation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"perturbation_std = 0\.0: expected a number above 0"):
        perturb_one_agent(torch.zeros(1, 3, 3), UNEQUAL, perturbation_std=0.0, generator=seeded(0))
