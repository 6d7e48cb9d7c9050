"""Replay against a plain list of episodes: what windows hold, how often each is drawn, what is forgotten and saved.

Every stored number says where it comes from: state = [episode, step], and the others follow from it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.config import ConfigError
from worldmodel.replay import Replay, ReplayConfig
from worldmodel.types import EnvSpec, Segment, Trajectory

SPEC = EnvSpec("count", num_agents=2, state_dim=2, obs_sizes=(3, 2), action_sizes=(2, 1), episode_steps=100)


def count_episode(
    episode: int, start: int, stop: int, *, stream: int = 0, terminated: bool = False, truncated: bool = False
) -> Trajectory:
    """Steps start..stop-1 of an episode that counts. Step t of episode e has state [e, t+1], never all zeros."""
    step = torch.arange(start, stop + 1, dtype=torch.float32) + 1
    state = torch.stack([torch.full_like(step, episode), step], dim=1)
    obs = (1000 * (episode + 1) + step)[:, None, None] + torch.arange(6).reshape(2, 3) / 10
    action = (step[:-1, None, None] / 1000 + torch.arange(4).reshape(2, 2) / 10).float()
    ends = torch.zeros(stop - start, dtype=torch.bool)
    last = torch.zeros_like(ends)
    last[-1] = True
    return Trajectory(
        obs=obs,
        state=state,
        action=action,
        reward=10 * step[:-1] + episode,
        terminated=last if terminated else ends,
        truncated=last if truncated else ends,
        stream=stream,
        is_start=start == 0,
    )


def replay_of(
    trajectories: list[Trajectory], *, capacity: int = 1000, streams: int = 1, recency: str = "uniform"
) -> Replay:
    replay = ReplayConfig(capacity=capacity, recency=recency).build(SPEC, streams)  # type: ignore[arg-type]
    for trajectory in trajectories:
        replay.append(trajectory)
    return replay


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_window(trajectory: Trajectory, first: int, length: int) -> dict[str, Tensor]:
    """The window of `length` transitions from step `first` of a whole episode, built one entry at a time."""
    out = {
        "obs": torch.zeros(length + 1, 2, 3),
        "state": torch.zeros(length + 1, 2),
        "action": torch.zeros(length, 2, 2),
        "reward": torch.zeros(length),
        "terminated": torch.zeros(length, dtype=torch.bool),
        "valid": torch.zeros(length, dtype=torch.bool),
    }
    for i in range(length + 1):
        if 0 <= first + i <= trajectory.length:
            out["obs"][i] = trajectory.obs[first + i]
            out["state"][i] = trajectory.state[first + i]
        if i < length and 0 <= first + i < trajectory.length:
            out["action"][i] = trajectory.action[first + i]
            out["reward"][i] = trajectory.reward[first + i]
            out["terminated"][i] = trajectory.terminated[first + i]
            out["valid"][i] = True
    return out


def assert_windows_are_true(segment: Segment, episodes: dict[int, Trajectory]) -> None:
    """Every window equals the naive one that its own first real state names."""
    real = segment.state_valid()
    for row in range(segment.valid.shape[0]):
        offset = int(real[row].nonzero()[0])
        episode, step = segment.state[row, offset].tolist()
        expected = naive_window(episodes[int(episode)], int(step) - 1 - offset, segment.length)
        for name, value in expected.items():
            assert torch.equal(getattr(segment, name)[row], value), (row, name)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    length=st.integers(1, 7),
    data=st.data(),
)
def test_windows_equal_the_naive_ones_and_never_cross_an_end(
    lengths: list[int], length: int, data: st.DataObject
) -> None:
    burn_in = data.draw(st.integers(0, length - 1))
    episodes = {i: count_episode(i, 0, n, terminated=i % 2 == 0) for i, n in enumerate(lengths)}
    replay = replay_of(list(episodes.values()))
    segment = replay.sample(64, length, burn_in=burn_in, generator=generator())
    assert_windows_are_true(segment, episodes)
    assert segment.valid[:, burn_in:].any(dim=1).all()
    contexts = replay.sample_contexts(64, length, generator())
    assert_windows_are_true(contexts, episodes)
    assert contexts.state_valid()[:, -1].all()
    last_step = torch.tensor([lengths[int(e)] for e in contexts.state[:, -1, 0]])
    assert (contexts.state[:, -1, 1] <= last_step).all(), "imagination never starts from an episode's final state"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_stores_samples_and_saves_on_its_device(device: str) -> None:
    episodes = {i: count_episode(i, 0, 3 + i % 4, stream=i % 2) for i in range(12)}
    config = ReplayConfig(capacity=1000, recency="newest")
    replay, loaded = config.build(SPEC, 2, device), config.build(SPEC, 2, device)
    for episode in episodes.values():
        replay.append(episode)
    segment = replay.sample(50, 5, burn_in=2, generator=torch.Generator(device).manual_seed(0))
    assert all(tensor.device.type == device for _, tensor in segment.tensors())
    assert_windows_are_true(segment.to("cpu"), episodes)
    saved = replay.state_dict()
    assert saved["obs"].device.type == "cpu"
    loaded.load_state_dict(saved)
    again = loaded.sample(50, 5, burn_in=2, generator=torch.Generator(device).manual_seed(0))
    assert torch.equal(segment.obs, again.obs)


def test_final_state_after_termination_is_the_last_target() -> None:
    replay = replay_of([count_episode(0, 0, 3, terminated=True)])
    segment = replay.sample(200, 2, generator=generator())
    ended = segment.terminated[:, -1]
    assert ended.any()
    assert (segment.state[ended][:, -1] == torch.tensor([0.0, 4.0])).all()


def test_context_of_an_episode_start_is_one_real_state_behind_padding() -> None:
    replay = replay_of([count_episode(0, 0, 1)])
    context = replay.sample_contexts(4, 3, generator())
    assert not context.valid.any()
    assert not context.state[:, :-1].any()
    assert (context.state[:, -1] == torch.tensor([0.0, 1.0])).all()
    first = count_episode(0, 0, 1)
    by_hand = Segment.from_first(first.obs[:1].expand(4, -1, -1), first.state[:1].expand(4, -1), 2, 3)
    for name, tensor in by_hand.tensors():
        assert torch.equal(getattr(context, name), tensor), name


def _chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_transitions_and_positions_are_uniform() -> None:
    lengths = [1, 5, 20, 2, 12]
    replay = replay_of([count_episode(i, 0, n) for i, n in enumerate(lengths)])
    draws, length, burn_in = 40_000, 5, 2
    contexts = replay.sample_contexts(draws, 0, generator(1))
    cells = sum(lengths)
    start = np.cumsum([0, *lengths])[contexts.state[:, 0, 0].long()] + contexts.state[:, 0, 1].long().numpy() - 1
    counts = np.bincount(start, minlength=cells)
    # 39 degrees of freedom: the 99.9 % quantile is 72.1.
    assert _chi_square(counts, np.full(cells, draws / cells)) < 72.1
    # The one-step episode has exactly one transition, so its place in the window is the drawn position.
    segment = replay.sample(draws, length, burn_in=burn_in, generator=generator(2))
    lone = segment.valid.sum(dim=1) == 1
    lone &= segment.state[:, :, 0].amax(dim=1) == 0
    position = np.bincount(segment.valid[lone].long().argmax(dim=1).numpy(), minlength=length)
    assert not position[:burn_in].any()
    # 2 degrees of freedom: the 99.9 % quantile is 13.8.
    assert _chi_square(position[burn_in:], np.full(3, int(lone.sum()) / 3)) < 13.8


def test_newest_draws_age_groups_by_their_weights() -> None:
    lengths = [10, 2, 2, 10, 3, 3, 1, 7]
    replay = replay_of([count_episode(i, 0, n) for i, n in enumerate(lengths)], recency="newest")
    draws = 40_000
    counts = np.bincount(replay.sample_contexts(draws, 0, generator()).state[:, 0, 0].long(), minlength=8)
    groups = np.repeat([0.1, 0.1, 0.1, 0.7], 2)
    share = np.array([10 / 12, 2 / 12, 2 / 12, 10 / 12, 3 / 6, 3 / 6, 1 / 8, 7 / 8])
    # 7 degrees of freedom: the 99.9 % quantile is 24.3.
    assert _chi_square(counts, draws * groups * share) < 24.3


@pytest.mark.parametrize("num_episodes", [1, 2, 3])
def test_newest_with_fewer_episodes_than_groups(num_episodes: int) -> None:
    replay = replay_of([count_episode(i, 0, 4) for i in range(num_episodes)], recency="newest")
    drawn = replay.sample_contexts(500, 0, generator()).state[:, 0, 0].unique().tolist()
    assert drawn == list(range(num_episodes))


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=3, max_size=40), seed=st.integers(0, 100))
def test_ring_keeps_the_newest_whole_episodes_that_fit(lengths: list[int], seed: int) -> None:
    capacity = 30
    replay = replay_of([], capacity=capacity)
    kept: dict[int, Trajectory] = {}
    for i, n in enumerate(lengths):
        kept[i] = count_episode(i, 0, n, truncated=True)
        replay.append(kept[i])
        while sum(t.length + 1 for t in kept.values()) > capacity:
            kept.pop(min(kept))
        assert replay.num_episodes == len(kept)
        assert replay.num_transitions == sum(t.length for t in kept.values())
    segment = replay.sample(100, 4, burn_in=1, generator=generator(seed))
    assert_windows_are_true(segment, kept)
    assert set(replay.sample_contexts(500, 0, generator(seed)).state[:, 0, 0].tolist()) <= set(kept)


def test_chunks_of_several_streams_extend_their_episodes_in_place() -> None:
    replay = replay_of([], capacity=120, streams=2)
    whole = {e: count_episode(e, 0, 10, stream=e % 2, terminated=True) for e in range(12)}
    for pair in range(0, 12, 2):  # the chunks of two streams alternate
        for start, stop in ((0, 3), (3, 4), (4, 10)):
            for episode in (pair, pair + 1):
                replay.append(count_episode(episode, start, stop, stream=episode % 2, terminated=stop == 10))
    assert replay.num_episodes == 10  # 5 episodes of 11 rows in each ring of 60
    segment = replay.sample(300, 6, burn_in=3, generator=generator())
    assert_windows_are_true(segment, whole)
    assert set(segment.state[segment.state_valid()][:, 0].tolist()) == set(range(2, 12))


def test_an_open_episode_can_be_drawn_before_it_ends() -> None:
    replay = replay_of([count_episode(0, 0, 3)])
    before = replay.sample(50, 3, generator=generator())
    assert before.state[:, :, 1].max() == 4
    replay.append(count_episode(0, 3, 5))
    assert replay.num_transitions == 5
    after = replay.sample(50, 5, generator=generator())
    assert_windows_are_true(after, {0: count_episode(0, 0, 5)})


@pytest.mark.parametrize("recency", ["uniform", "newest"])
def test_sampling_after_loading_is_the_same_to_the_bit(recency: str) -> None:
    trajectories = [count_episode(i, 0, 3 + i % 5, stream=i % 2, truncated=True) for i in range(30)]
    trajectories += [count_episode(30, 0, 2, stream=0)]  # left open
    replay = replay_of(trajectories, capacity=80, streams=2, recency=recency)
    loaded = replay_of([count_episode(7, 0, 20)], capacity=80, streams=2, recency=recency)
    loaded.load_state_dict(replay.state_dict())
    follow_up = [count_episode(30, 2, 9, stream=0, terminated=True), count_episode(31, 0, 12, stream=1)]
    for step in range(3):
        first = replay.sample(40, 4, burn_in=2, generator=generator(step))
        second = loaded.sample(40, 4, burn_in=2, generator=generator(step))
        for name, tensor in first.tensors():
            assert torch.equal(tensor, getattr(second, name)), name
        if step < 2:  # later evictions agree too
            replay.append(follow_up[step])
            loaded.append(follow_up[step])
    assert replay.num_transitions == loaded.num_transitions


def test_saved_rows_are_used_rows_only() -> None:
    replay = replay_of([count_episode(0, 0, 4, truncated=True), count_episode(1, 0, 2)], capacity=10_000)
    saved = replay.state_dict()
    assert saved["state"].shape == (8, 2)
    assert saved["episodes"].tolist() == [[0, 0, 4], [0, 5, 2]]
    replay.append(count_episode(2, 0, 2))
    assert saved["state"].shape == (8, 2)
    assert saved["state"][-1].tolist() == [1.0, 3.0]


def test_refusals_name_what_is_wrong() -> None:
    replay = replay_of([count_episode(0, 0, 4, terminated=True)], capacity=20, streams=2)
    with pytest.raises(ValueError, match="has ended"):
        replay.append(count_episode(0, 4, 5))
    with pytest.raises(ValueError, match="never stored"):
        replay.append(count_episode(0, 4, 5, stream=1))
    with pytest.raises(ValueError, match="stream 2.*0..1"):
        replay.append(count_episode(0, 0, 5, stream=2))
    with pytest.raises(ValueError, match="raise capacity to at least 22"):
        replay.append(count_episode(0, 0, 10, stream=1))
    replay.append(count_episode(1, 0, 2, stream=1))
    with pytest.raises(ValueError, match="another state"):
        replay.append(count_episode(1, 3, 5, stream=1))
    bad = count_episode(2, 0, 3)
    bad.reward[1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"reward\[1\] is nan"):
        replay.append(bad)
    assert replay.num_transitions == 6
    with pytest.raises(ValueError, match="burn_in = 3"):
        replay.sample(4, 3, burn_in=3, generator=generator())
    with pytest.raises(ValueError, match="empty"):
        replay_of([]).sample(1, 1, generator=generator())
    with pytest.raises(ValueError, match="num_streams = 2"):
        replay_of([]).load_state_dict(replay.state_dict())
    with pytest.raises(ConfigError, match="capacity"):
        replay_of([], capacity=5, streams=4)
