"""What really happened: stretches of held-out episodes that forecasts are compared with.

Drawn once and shared by every model and order that is compared, so that their differences are paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.types import Segment, TensorStruct, Trajectory


@dataclasses.dataclass(frozen=True)
class TestSegments(TensorStruct):
    """B stretches of real episodes. Each goes on for H steps or until its episode terminates, whichever comes first.

    Only a termination makes a step invalid: a start whose H steps would run into a time-out or the end of the
    recording is never drawn, because nobody knows what came then.
    """

    __test__: ClassVar[bool] = False  # or pytest would take the name for a class of tests

    context: Segment
    """[B,K] what precedes, left-padded at an episode's start as replay does it; the forecast starts from its last
    state."""
    action: Tensor
    """[B,H,N,A] the recorded joint actions, zeros where not valid."""
    state: Tensor
    """[B,H,S] the state after each step, zeros where not valid."""
    obs: Tensor
    """[B,H,N,O] the observations after each step, zeros where not valid."""
    reward: Tensor
    """[B,H] the team's reward of each step, zeros where not valid."""
    terminated: Tensor
    """[B,H] bool: the episode terminates with this step."""
    valid: Tensor
    """[B,H] bool: this step was taken."""
    episode: Tensor
    """[B] int64: which of the trajectories."""
    start: Tensor
    """[B] int64: steps of its episode before the forecast starts."""

    @property
    def num_segments(self) -> int:
        """B."""
        return self.action.shape[0]

    @property
    def horizon(self) -> int:
        """H."""
        return self.action.shape[1]


def require_whole_episodes(trajectories: Sequence[Trajectory]) -> None:
    """Refuse an empty collection and trajectories that go on with an earlier one.

    Raises:
        ValueError: naming the first trajectory that does not begin with its episode.
    """
    if not trajectories:
        raise ValueError("no trajectories: expected at least one episode")
    for number, trajectory in enumerate(trajectories):
        if not trajectory.is_start:
            raise ValueError(
                f"trajectory {number} goes on with an earlier one: expected whole episodes; join them first"
            )


def draw_segments(
    trajectories: Sequence[Trajectory],
    *,
    context_length: int,
    horizon: int,
    num_segments: int,
    generator: torch.Generator,
) -> TestSegments:
    """Draw B different starts, uniform over all possible ones, and cut out what surrounds them.

    Args:
        trajectories: whole episodes, on the CPU.
        context_length: K.
        horizon: H, at least 1.
        num_segments: B, at least 1.
        generator: source of the draw.

    Returns:
        The segments on the CPU, sorted by (episode, start).

    Raises:
        ValueError: when a trajectory is no whole episode, a number is out of range, or there are too few starts.
    """
    for name, value, least in (
        ("context_length", context_length, 0),
        ("horizon", horizon, 1),
        ("num_segments", num_segments, 1),
    ):
        if value < least:
            raise ValueError(f"{name} = {value}: expected at least {least}")
    require_whole_episodes(trajectories)
    num_starts = torch.tensor([_num_starts(trajectory, horizon) for trajectory in trajectories])
    total = int(num_starts.sum())
    if total < num_segments:
        fewer = f"at most {total} segments or " if total > 0 else ""
        raise ValueError(
            f"segments = {num_segments}: in {len(trajectories)} episode(s) there are {total} starts that {horizon}"
            f" steps or a termination follow; ask for {fewer}a shorter horizon, or collect more"
        )
    drawn = torch.randperm(total, generator=generator, device=generator.device)[:num_segments].sort().values.cpu()
    end = num_starts.cumsum(0)
    episode = torch.searchsorted(end, drawn, right=True)
    start = drawn - (end - num_starts)[episode]
    windows = [
        _window(trajectories[e], s - context_length, context_length + horizon)
        for e, s in zip(episode.tolist(), start.tolist(), strict=True)
    ]
    whole = Segment(**{name: torch.stack([window[name] for window in windows]) for name in windows[0]})
    future = whole.steps(context_length, context_length + horizon)
    return TestSegments(
        context=whole.steps(0, context_length),
        action=future.action,
        state=future.state[:, 1:],
        obs=future.obs[:, 1:],
        reward=future.reward,
        terminated=future.terminated,
        valid=future.valid,
        episode=episode,
        start=start,
    )


def _num_starts(trajectory: Trajectory, horizon: int) -> int:
    """Starts 0, 1, ... of `trajectory` that H recorded steps follow, or fewer and then a termination."""
    if bool(trajectory.terminated[-1]):
        return trajectory.length
    return max(trajectory.length - horizon + 1, 0)


def _window(trajectory: Trajectory, first: int, length: int) -> dict[str, Tensor]:
    """The fields of a `Segment` without its batch axis: `length` transitions from step `first` on."""
    return {
        "obs": _cut(trajectory.obs, first, length + 1),
        "state": _cut(trajectory.state, first, length + 1),
        "action": _cut(trajectory.action, first, length),
        "reward": _cut(trajectory.reward, first, length),
        "terminated": _cut(trajectory.terminated, first, length),
        "valid": _cut(torch.ones_like(trajectory.terminated), first, length),
    }


def _cut(rows: Tensor, first: int, length: int) -> Tensor:
    """`length` of `rows` from number `first` on, zeros where there are none."""
    cut = rows.new_zeros(length, *rows.shape[1:])
    begin, end = max(first, 0), min(first + length, len(rows))
    if begin < end:
        cut[begin - first : end - first] = rows[begin:end]
    return cut
