"""Collection: data keeps its order, and a collector goes on bit for bit from where it was saved."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from envs.base import EnvError, StepResult
from envs.collector import Collector
from envs.random_agent import RandomAgent
from envs.stream import episode_seed
from envs.toy.counter import CounterConfig
from tests.support.toy_systems import linear_config
from worldmodel.types import EnvSpec, TensorStruct, Trajectory

COUNTER = CounterConfig(num_agents=2, shortest_episode=3, episode_steps=7)
LINEAR = linear_config(num_agents=2, terminate_beyond=2.5)


@dataclasses.dataclass(frozen=True)
class Memory(TensorStruct):
    """How often each row has acted since it forgot, and a running mean of what it saw."""

    count: Tensor
    seen: Tensor


class RememberingAgent:
    """Acts on what it remembers and on chance of its own, so that a lost carry or generator shows at once."""

    def __init__(self, spec: EnvSpec, seed: int) -> None:
        self.mask = spec.action_mask().float()
        self.generator = torch.Generator().manual_seed(seed)
        self.begun = 0

    def begin(self, obs: Tensor, state: Tensor) -> Memory:
        self.begun += 1
        return Memory(count=torch.zeros(len(obs)), seen=torch.zeros_like(obs))

    def act(self, carry: Memory, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, Memory]:
        count = torch.where(is_first, 0.0, carry.count) + 1
        seen = torch.where(is_first[:, None, None], torch.zeros_like(obs), 0.9 * carry.seen) + 0.1 * obs
        noise = torch.rand(len(obs), *self.mask.shape, generator=self.generator)
        action = torch.tanh(seen.mean((1, 2)) + 0.1 * count)[:, None, None] * noise
        return action * self.mask, Memory(count=count, seen=seen)


def check_counted(trajectories: list[Trajectory], seed: int, expected_steps: dict[int, int] | None = None) -> None:
    """Every stream's chunks, put together, count through its episodes without a gap."""
    env = COUNTER.build()
    for stream in {trajectory.stream for trajectory in trajectories}:
        episode = step = total = 0
        for chunk in (trajectory for trajectory in trajectories if trajectory.stream == stream):
            chunk.validate(env.spec)
            expected_seed = episode_seed(seed, stream, episode)
            assert chunk.seed == expected_seed
            assert chunk.is_start == (step == 0)
            counted = torch.arange(step, step + chunk.length + 1, dtype=torch.float32)
            high, low, count, action_sum = chunk.state.T
            assert (high == expected_seed // 2**16).all()
            assert (low == expected_seed % 2**16).all()
            torch.testing.assert_close(count, counted, rtol=0, atol=0)
            torch.testing.assert_close(chunk.obs[:, 1, 0], counted, rtol=0, atol=0)
            torch.testing.assert_close(chunk.reward, counted[1:], rtol=0, atol=0)
            torch.testing.assert_close(action_sum[1:], chunk.action.sum((1, 2)), rtol=0, atol=1e-6)
            step += chunk.length
            total += chunk.length
            assert chunk.is_open == (step < env.length(expected_seed))
            if not chunk.is_open:
                assert bool(chunk.terminated[-1]) == (expected_seed % 2 == 0)
                assert bool(chunk.truncated[-1]) == (expected_seed % 2 == 1)
                episode, step = episode + 1, 0
        if expected_steps is not None:
            assert total == expected_steps[stream]


@given(num_envs=st.integers(1, 4), calls=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_steps_are_counted_over_episode_ends_chunks_and_streams(num_envs: int, calls: list[int], seed: int) -> None:
    collector = Collector(COUNTER, num_envs, seed)
    agent = RandomAgent(collector.spec, torch.Generator().manual_seed(seed))
    collected = [collector.collect(agent, num_steps=steps * num_envs) for steps in calls]
    for steps, trajectories in zip(calls, collected, strict=True):
        assert sum(trajectory.length for trajectory in trajectories) == steps * num_envs
    check_counted(
        [t for trajectories in collected for t in trajectories], seed, dict.fromkeys(range(num_envs), sum(calls))
    )


@given(num_envs=st.integers(1, 4), num_episodes=st.integers(1, 9), seed=st.integers(0, 9))
def test_episodes_are_whole_and_shared_equally(num_envs: int, num_episodes: int, seed: int) -> None:
    collector = Collector(COUNTER, num_envs, seed)
    agent = RandomAgent(collector.spec, torch.Generator().manual_seed(seed))
    trajectories = collector.collect(agent, num_episodes=num_episodes)
    assert len(trajectories) == len(collector.episodes) == num_episodes
    assert all(trajectory.is_start and not trajectory.is_open for trajectory in trajectories)
    played = [sum(trajectory.stream == stream for trajectory in trajectories) for stream in range(num_envs)]
    assert played == [len(range(stream, num_episodes, num_envs)) for stream in range(num_envs)]
    check_counted(trajectories, seed)
    for episode, trajectory in zip(collector.episodes, trajectories, strict=True):
        assert (episode.stream, episode.seed, episode.length) == (trajectory.stream, trajectory.seed, trajectory.length)
        assert episode.return_ == trajectory.reward.sum().item()
        assert episode.terminated == bool(trajectory.terminated[-1])


def test_counting_episodes_finishes_the_open_ones_first() -> None:
    collector = Collector(COUNTER, 2, 0)
    agent = RandomAgent(collector.spec, torch.Generator().manual_seed(0))
    trajectories = collector.collect(agent, num_steps=4)
    assert all(trajectory.is_open for trajectory in trajectories)
    trajectories += collector.collect(agent, num_episodes=4)
    assert [trajectory.is_start for trajectory in trajectories[2:]].count(False) == 2
    trajectories += collector.collect(agent, num_steps=4)
    check_counted(trajectories, 0)


def test_returns_span_the_calls_over_which_an_episode_was_collected() -> None:
    collector = Collector(COUNTER, 1, 0)
    agent = RandomAgent(collector.spec, torch.Generator())
    assert collector.collect(agent, num_steps=2)
    assert collector.episode_returns == []
    collector.collect(agent, num_episodes=1)
    length = COUNTER.build().length(episode_seed(0, 0, 0))
    assert collector.episode_returns == [length * (length + 1) / 2]


def test_episode_seeds_differ_and_fit_31_bits() -> None:
    seeds = {episode_seed(run, stream, episode) for run in range(3) for stream in range(8) for episode in range(50)}
    assert len(seeds) == 3 * 8 * 50
    assert all(0 <= seed < 2**31 for seed in seeds)


def same(first: list[Trajectory], second: list[Trajectory]) -> bool:
    if len(first) != len(second):
        return False
    for a, b in zip(first, second, strict=True):
        if (a.stream, a.is_start, a.seed) != (b.stream, b.is_start, b.seed):
            return False
        if not all(torch.equal(x, y) for (_, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True)):
            return False
    return True


@pytest.mark.parametrize("config", [LINEAR, COUNTER])
@pytest.mark.parametrize("steps", [3, 21, 60])
def test_a_loaded_collector_goes_on_bit_for_bit(config: Any, steps: int) -> None:
    collector = Collector(config, 3, seed=1)
    agent = RememberingAgent(collector.spec, seed=2)
    collector.collect(agent, num_steps=steps)
    saved, chance = collector.state_dict(), agent.generator.get_state().clone()
    expected = collector.collect(agent, num_steps=60) + collector.collect(agent, num_episodes=4)

    assert all(isinstance(value, (Tensor, int, str, bool, type(None))) for value in saved.values())
    loaded, other = Collector(config, 3, seed=1), RememberingAgent(collector.spec, seed=99)
    loaded.load_state_dict(saved)
    other.generator.set_state(chance)
    assert same(expected, loaded.collect(other, num_steps=60) + loaded.collect(other, num_episodes=4))
    assert loaded.episodes == collector.episodes


def test_saving_changes_nothing_and_a_fresh_or_just_loaded_collector_can_be_saved() -> None:
    fresh = Collector(LINEAR, 2, seed=0)
    agent = RememberingAgent(fresh.spec, seed=0)
    fresh.load_state_dict(fresh.state_dict())
    fresh.collect(agent, num_steps=8)
    saved = fresh.state_dict()
    loaded = Collector(LINEAR, 2, seed=0)
    loaded.load_state_dict(saved)
    again = loaded.state_dict()
    assert saved.keys() == again.keys()
    for name, value in saved.items():
        assert torch.equal(value, again[name]) if isinstance(value, Tensor) else value == again[name]


def test_an_agent_whose_start_draws_random_numbers_is_begun_while_loading() -> None:
    class Drawing(RememberingAgent):
        def begin(self, obs: Tensor, state: Tensor) -> Memory:
            torch.rand(3, generator=self.generator)
            return super().begin(obs, state)

    collector = Collector(LINEAR, 2, seed=0)
    agent = Drawing(collector.spec, seed=0)
    collector.collect(agent, num_steps=10)
    saved, chance = collector.state_dict(), agent.generator.get_state().clone()
    expected = collector.collect(agent, num_steps=10)
    loaded, other = Collector(LINEAR, 2, seed=0), Drawing(collector.spec, seed=5)
    loaded.load_state_dict(saved, other)
    other.generator.set_state(chance)
    assert same(expected, loaded.collect(other, num_steps=10))
    assert other.begun == 1


def test_a_pickled_collector_goes_on_too() -> None:
    collector = Collector(LINEAR, 2, seed=0)
    agent = RememberingAgent(collector.spec, seed=0)
    collector.collect(agent, num_steps=30)
    chance = agent.generator.get_state().clone()
    moved = pickle.loads(pickle.dumps(collector))
    expected = collector.collect(agent, num_steps=10)
    agent.generator.set_state(chance)
    assert same(expected, moved.collect(agent, num_steps=10))


def test_another_kind_of_agent_begins_anew_and_the_same_kind_goes_on() -> None:
    collector = Collector(LINEAR, 2, seed=0)
    first = RememberingAgent(collector.spec, seed=0)
    collector.collect(first, num_steps=4)
    second = RememberingAgent(collector.spec, seed=0)
    collector.collect(second, num_steps=4)
    assert (first.begun, second.begun) == (1, 0)
    collector.collect(RandomAgent(collector.spec, torch.Generator()), num_steps=4)
    collector.collect(second, num_steps=4)
    assert second.begun == 1


@pytest.mark.parametrize("shares", [(1, 2), (2, 1), (1, 1, 1)])
def test_collectors_that_share_the_streams_of_a_run_see_the_episodes_of_one(shares: tuple[int, ...]) -> None:
    whole = Collector(COUNTER, 3, seed=4)
    agent = RandomAgent(whole.spec, torch.Generator())
    together = whole.collect(agent, num_steps=60)
    apart: list[Trajectory] = []
    for worker, share in enumerate(shares):
        collector = Collector(COUNTER, share, seed=4, first_stream=sum(shares[:worker]))
        apart += collector.collect(agent, num_steps=20 * share)
        again = pickle.loads(pickle.dumps(collector))
        apart += again.collect(agent, num_steps=10 * share)
    check_counted(apart, 4, dict.fromkeys(range(3), 30))
    begun = {(trajectory.stream, trajectory.seed) for trajectory in together}
    assert begun <= {(trajectory.stream, trajectory.seed) for trajectory in apart}


class Unrepeatable:
    """A linear toy whose later copies drift: as if the simulator had changed between two runs."""

    made = 0

    def __init__(self) -> None:
        self.env = LINEAR.build()
        self.drift = np.float32(0.001 * Unrepeatable.made)
        Unrepeatable.made += 1

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, seed: int) -> Any:
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        result = self.env.step(action)
        return result._replace(state=result.state + self.drift)

    def render(self) -> np.ndarray:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def test_an_environment_that_does_not_repeat_itself_is_named() -> None:
    collector = Collector(Unrepeatable, 1, seed=0)
    collector.collect(RandomAgent(collector.spec, torch.Generator()), num_steps=2)
    with pytest.raises(EnvError, match=r"does not repeat itself: 2 steps into the episode .*, state\[0\] is"):
        Collector(Unrepeatable, 1, seed=0).load_state_dict(collector.state_dict())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: Collector(COUNTER, 2, seed=0),
            "env_id = 'toy/counter-2' cannot go on from one with env_id = 'toy",
        ),
        (lambda: Collector(LINEAR, 3, seed=0), "num_envs = 3 cannot go on from one with num_envs = 2"),
        (lambda: Collector(LINEAR, 2, seed=4), "seed = 4 cannot go on from one with seed = 0"),
        (lambda: Collector(LINEAR, 2, 0, 3), "first_stream = 3 cannot go on from one with first_stream = 0"),
    ],
)
def test_a_state_of_another_collector_is_refused(other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        other().load_state_dict(Collector(LINEAR, 2, seed=0).state_dict())


def test_a_carry_of_another_shape_is_refused() -> None:
    class Grown(RememberingAgent):
        def begin(self, obs: Tensor, state: Tensor) -> Memory:
            return Memory(count=torch.zeros(len(obs), 5), seen=torch.zeros_like(obs))

    collector = Collector(LINEAR, 2, seed=0)
    collector.collect(RememberingAgent(collector.spec, seed=0), num_steps=4)
    saved = collector.state_dict()
    loaded, agent = Collector(LINEAR, 2, seed=0), Grown(collector.spec, seed=0)
    saved["carry_owner"] = f"{__name__}.{Grown.__qualname__}"
    loaded.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"the saved carry .*'count': \[2\].* begins with .*'count': \[2, 5\]"):
        loaded.collect(agent, num_steps=2)


class Fixed:
    """Always gives the same action."""

    def __init__(self, action: Tensor) -> None:
        self.action = action

    def begin(self, obs: Tensor, state: Tensor) -> None:
        return None

    def act(self, carry: None, obs: Tensor, state: Tensor, is_first: Tensor) -> tuple[Tensor, None]:
        return self.action, None


def with_entry(value: float) -> Tensor:
    action = torch.zeros(2, 2, 2)
    action[1, 0, 1] = value
    return action


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (with_entry(float("nan")), FloatingPointError, "entry 1 of agent 0 in stream 1 is nan"),
        (with_entry(1.5), ValueError, r"reaches 1\.5; expected \[-1, 1\]: clip in `act`"),
        (torch.zeros(2, 2), ValueError, r"has shape \[2, 2\], expected 3 axes"),
        (torch.zeros(2, 2, 3), ValueError, "axis A is 3, not 2"),
    ],
)
def test_actions_that_cannot_be_executed_are_refused(action: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Collector(LINEAR, 2, seed=0).collect(Fixed(action), num_steps=2)


def test_what_is_stored_is_what_was_executed() -> None:
    """Rounding beyond 1 is clipped, and padded entries are zero."""
    collector = Collector(COUNTER, 1, seed=0)
    action = torch.tensor([[[1.000001, 0.7], [-0.5, 0.25]]])
    (trajectory,) = collector.collect(Fixed(action), num_steps=1)
    torch.testing.assert_close(trajectory.action[0], torch.tensor([[1.0, 0.0], [-0.5, 0.25]]), rtol=0, atol=0)


def test_a_bad_environment_is_named_where_it_breaks() -> None:
    class Nan(Unrepeatable):
        def step(self, action: np.ndarray) -> StepResult:
            return self.env.step(action)._replace(reward=float("nan"))

    collector = Collector(Nan, 1, seed=0)
    with pytest.raises(EnvError, match=r"toy/linear-2x2, after step 1 of the episode with seed \d+: reward has"):
        collector.collect(RandomAgent(collector.spec, torch.Generator()), num_steps=1)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({}, "expected exactly one"),
        ({"num_steps": 2, "num_episodes": 2}, "expected exactly one"),
        ({"num_steps": 3}, "num_steps = 3: expected a multiple of num_envs = 2"),
        ({"num_episodes": 0}, "expected at least 1"),
    ],
)
def test_impossible_orders_are_refused(numbers: dict[str, int], message: str) -> None:
    collector = Collector(COUNTER, 2, seed=0)
    with pytest.raises(ValueError, match=message):
        collector.collect(RandomAgent(collector.spec, torch.Generator()), **numbers)


def test_random_actions_are_uniform_masked_and_repeatable() -> None:
    spec = EnvSpec("x", num_agents=2, state_dim=1, obs_sizes=(1, 1), action_sizes=(2, 1), episode_steps=1)
    obs, state = torch.zeros(4000, 2, 1), torch.zeros(4000, 1)
    first, second = (
        RandomAgent(spec, torch.Generator().manual_seed(3)).act(None, obs, state, torch.zeros(4000).bool())[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not first[:, 1, 1].any()
    real = first[:, spec.action_mask()]
    assert real.abs().max() <= 1
    assert real.mean().item() == pytest.approx(0, abs=0.03)
    assert real.var().item() == pytest.approx(1 / 3, abs=0.01)
