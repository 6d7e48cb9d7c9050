"""Test segments against one-entry-at-a-time loops over the same episodes, and against what replay gives as context.

Every stored number says where it comes from: the state of step t of episode e is [e, t + 1], never all zeros.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldmodel.evaluation.segments import TestSegments, draw_segments
from worldmodel.replay import ReplayConfig
from worldmodel.types import EnvSpec, Segment, Trajectory

SPEC = EnvSpec("count", num_agents=2, state_dim=2, obs_sizes=(3, 3), action_sizes=(1, 1), episode_steps=100)
ENDS = ("terminates", "runs out of time", "is cut off")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count_episode(number: int, length: int, end: str) -> Trajectory:
    step = torch.arange(length + 1, dtype=torch.float32) + 1
    last = torch.arange(length) == length - 1
    return Trajectory(
        obs=(100 * (number + 1) + step)[:, None, None] + torch.arange(6).reshape(2, 3) / 10,
        state=torch.stack([torch.full_like(step, number), step], dim=1),
        action=(step[:-1, None, None] / 1000 + torch.tensor([[0.1], [0.2]])).float(),
        reward=10 * step[:-1] + number,
        terminated=last & (end == "terminates"),
        truncated=last & (end == "runs out of time"),
    )


def possible_starts(episodes: list[Trajectory], horizon: int) -> list[tuple[int, int]]:
    """(episode, start) in order: walk from every state and see whether the horizon or a termination comes first."""
    found = []
    for number, episode in enumerate(episodes):
        for start in range(episode.length):
            for t in itertools.count():
                if t == horizon:
                    found.append((number, start))
                    break
                if start + t == episode.length:
                    break
                if episode.terminated[start + t]:
                    found.append((number, start))
                    break
    return found


def naive_rows(rows: Tensor, first: int, length: int) -> Tensor:
    """`length` rows from number `first` on, one at a time, zeros where there are none."""
    out = torch.zeros(length, *rows.shape[1:], dtype=rows.dtype)
    for i in range(length):
        if 0 <= first + i < len(rows):
            out[i] = rows[first + i]
    return out


def assert_true_segments(segments: TestSegments, episodes: list[Trajectory], k: int, horizon: int) -> None:
    for row, (number, start) in enumerate(zip(segments.episode.tolist(), segments.start.tolist(), strict=True)):
        episode = episodes[number]
        done = torch.ones(episode.length, dtype=torch.bool)
        expected = {
            "context.obs": naive_rows(episode.obs, start - k, k + 1),
            "context.state": naive_rows(episode.state, start - k, k + 1),
            "context.action": naive_rows(episode.action, start - k, k),
            "context.reward": naive_rows(episode.reward, start - k, k),
            "context.terminated": naive_rows(episode.terminated, start - k, k),
            "context.valid": naive_rows(done, start - k, k),
            "action": naive_rows(episode.action, start, horizon),
            "state": naive_rows(episode.state, start + 1, horizon),
            "obs": naive_rows(episode.obs, start + 1, horizon),
            "reward": naive_rows(episode.reward, start, horizon),
            "terminated": naive_rows(episode.terminated, start, horizon),
            "valid": naive_rows(done, start, horizon),
        }
        for name, tensor in segments.tensors():
            if name in expected:
                assert torch.equal(tensor[row], expected.pop(name)), (name, number, start)
        assert not expected


EPISODES = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(ENDS)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(shapes=EPISODES, k=st.integers(0, 4), horizon=st.integers(1, 6), data=st.data())
def test_segments_equal_the_naive_ones(
    shapes: list[tuple[int, str]], k: int, horizon: int, data: st.DataObject
) -> None:
    episodes = [count_episode(number, length, end) for number, (length, end) in enumerate(shapes)]
    starts = possible_starts(episodes, horizon)
    asked = data.draw(st.integers(1, max(len(starts), 1)))

    def draw(num_segments: int) -> TestSegments:
        return draw_segments(
            episodes, context_length=k, horizon=horizon, num_segments=num_segments, generator=seeded(asked)
        )

    if starts:
        segments = draw(asked)
        drawn = list(zip(segments.episode.tolist(), segments.start.tolist(), strict=True))
        assert drawn == sorted(set(drawn))
        assert len(drawn) == asked == segments.num_segments
        assert set(drawn) <= set(starts)
        assert_true_segments(segments, episodes, k, horizon)
        assert segments.horizon == horizon
        ends_early = ~segments.valid.all(dim=1)
        assert torch.equal(ends_early, ends_early & segments.terminated.any(dim=1)), "only terminations cut short"
        whole = draw(len(starts))
        assert list(zip(whole.episode.tolist(), whole.start.tolist(), strict=True)) == starts
    with pytest.raises(ValueError, match=f"there are {len(starts)} starts"):
        draw(len(starts) + 1)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_contexts_are_those_of_replay(k: int) -> None:
    """At every (episode, step): what a model is judged on looks like what it imagines from while learning."""
    episodes = [count_episode(i, length, ENDS[i % 3]) for i, length in enumerate((1, 2, 5, 7, 3))]
    replay = ReplayConfig(capacity=100, recency="uniform").build(SPEC, num_streams=1)
    for episode in episodes:
        replay.append(episode)
    sampled = replay.sample_contexts(300, k, seeded(1))

    ours = draw_segments(episodes, context_length=k, horizon=1, num_segments=18, generator=seeded())

    rows = {tuple(place): row for row, place in enumerate(sampled.state[:, -1].tolist())}
    assert len(rows) == 18, "replay was not asked often enough to give every context"
    for row, place in enumerate(zip(ours.episode.tolist(), (ours.start + 1).tolist(), strict=True)):
        theirs: Segment = sampled[rows[place]]
        for (name, one), (_, other) in zip(ours.context[row].tensors(), theirs.tensors(), strict=True):
            assert torch.equal(one, other), (name, place)


def test_all_starts_are_drawn_equally_often() -> None:
    """10 possible starts, 2 drawn at a time: 2000 draws give each 400 times, +- 5 standard deviations (about 18)."""
    episodes = [count_episode(0, 6, "terminates"), count_episode(1, 6, "runs out of time")]
    count = dict.fromkeys(possible_starts(episodes, 3), 0)
    generator = seeded(2)

    for _ in range(2000):
        drawn = draw_segments(episodes, context_length=0, horizon=3, num_segments=2, generator=generator)
        for place in zip(drawn.episode.tolist(), drawn.start.tolist(), strict=True):
            count[place] += 1

    assert len(count) == 10
    assert all(abs(times - 400) < 90 for times in count.values()), count


def test_the_same_seed_draws_the_same_segments() -> None:
    episodes = [count_episode(i, 20, "runs out of time") for i in range(3)]
    first, second, third = (
        draw_segments(episodes, context_length=2, horizon=5, num_segments=6, generator=seeded(seed))
        for seed in (0, 0, 1)
    )

    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first.tensors(), second.tensors(), strict=True))
    assert not torch.equal(first.state, third.state)


def test_changing_a_segment_leaves_the_episode_alone() -> None:
    episode = count_episode(0, 8, "terminates")
    kept = episode.map(torch.clone)
    segments = draw_segments([episode], context_length=2, horizon=3, num_segments=8, generator=seeded())

    segments.map(lambda tensor: tensor.zero_())

    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(episode.tensors(), kept.tensors(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon = 0: expected at least 1"),
        ({"num_segments": 0}, "num_segments = 0: expected at least 1"),
        ({"context_length": -1}, "context_length = -1: expected at least 0"),
        ({"trajectories": []}, "expected at least one episode"),
        (
            {"trajectories": [dataclasses.replace(count_episode(0, 5, "terminates"), is_start=False)]},
            "trajectory 0 goes on with an earlier one",
        ),
        ({"horizon": 6}, "there are 0 starts that 6 steps or a termination follow"),
    ],
)
def test_impossible_draws_are_refused(changes: dict, message: str) -> None:
    arguments = {
        "trajectories": [count_episode(0, 5, "runs out of time")],
        "context_length": 2,
        "horizon": 2,
        "num_segments": 1,
    }

    with pytest.raises(ValueError, match=message):
        draw_segments(**arguments | changes, generator=seeded())
