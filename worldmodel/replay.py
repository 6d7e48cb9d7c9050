"""Real episodes in, training segments out; everything lives and is sampled on one device.

Each environment stream has a ring of rows, a row for every time index of its episodes. Knows no model.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from worldmodel.config import Config, ConfigError
from worldmodel.episode_index import EpisodeIndex
from worldmodel.types import EnvSpec, Segment, TensorStruct, Trajectory

GROUP_WEIGHTS: dict[str, tuple[float, ...]] = {"uniform": (1.0,), "newest": (0.1, 0.1, 0.1, 0.7)}
"""Probability of equal groups of episodes, oldest first; `newest` as in DIAMOND and the authors' published code."""


@dataclasses.dataclass(frozen=True)
class ReplayConfig(Config):
    """How much is remembered and what is drawn from it."""

    capacity: int
    """Rows over all streams: a transition takes one, and so does the final state of every episode."""
    recency: Literal["uniform", "newest"]
    """`uniform`: every stored transition alike. `newest`: four equal groups of episodes by age, drawn with weights
    0.1, 0.1, 0.1 and 0.7 (newest); within a group every transition alike."""

    def validate(self) -> None:
        """Refuse a capacity that holds nothing."""
        self.require(self.capacity >= 2, "capacity", "at least 2 rows")

    def build(self, spec: EnvSpec, num_streams: int, device: torch.device | str = "cpu") -> Replay:
        """An empty replay for trajectories of `spec` from `num_streams` environments."""
        return Replay(spec, self, num_streams, device)


@dataclasses.dataclass(frozen=True)
class _Rows(TensorStruct):
    """One row for each time index: the state, and what happened there (zeros in an episode's final row)."""

    obs: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


@dataclasses.dataclass
class _Episode:
    """Where an episode lies: `length` transitions in the ring of `stream`, the first in row `start`."""

    born: int
    """Counts episodes over all streams: their age."""
    stream: int
    start: int
    length: int


class Replay:
    """A ring of rows for each stream; whole oldest episodes of a stream make room for its newer ones.

    All memory is reserved at construction as zeros: `capacity * (4*(N*O + S + N*A + 1) + 2)` bytes, 62 MB for
    250 000 rows of HalfCheetah-2x3 with full observations. A CPU hands out pages only as rows are written, a GPU all
    of them at once.
    """

    def __init__(self, spec: EnvSpec, config: ReplayConfig, num_streams: int, device: torch.device | str) -> None:
        """Start empty.

        Raises:
            ConfigError: when the capacity does not give every stream two rows.
        """
        self.spec = spec
        self.config = config
        self.device = torch.device(device)
        self._stream_rows = config.capacity // num_streams
        if self._stream_rows < 2:
            raise ConfigError(
                f"ReplayConfig.capacity = {config.capacity}: expected at least 2 rows for each of {num_streams} streams"
            )
        self._rows = _empty_rows(spec, self._stream_rows * num_streams, self.device)
        self._streams: list[deque[_Episode]] = [deque() for _ in range(num_streams)]
        self._num_born = 0
        self._index: EpisodeIndex | None = None

    @property
    def num_transitions(self) -> int:
        """Transitions stored."""
        return sum(episode.length for episodes in self._streams for episode in episodes)

    @property
    def num_episodes(self) -> int:
        """Episodes stored, open ones included."""
        return sum(len(episodes) for episodes in self._streams)

    def append(self, trajectory: Trajectory) -> None:
        """Store `trajectory`; one that goes on (`is_start` false) extends the last episode of its stream in place.

        Raises:
            ValueError: when a shape disagrees with the spec, an episode does not fit into its ring, or a trajectory
                goes on where nothing was left open or from another state.
            FloatingPointError: naming the field, when a value is not finite.
        """
        trajectory.validate(self.spec)
        stream = trajectory.stream
        if not 0 <= stream < len(self._streams):
            raise ValueError(f"trajectory of stream {stream}: expected one of 0..{len(self._streams) - 1}")
        episode = _Episode(self._num_born, stream, self._next_row(stream), 0)
        if not trajectory.is_start:
            episode = self._open_episode(trajectory)
        length = episode.length + trajectory.length
        if length + 1 > self._stream_rows:
            raise ValueError(
                f"an episode of {length} transitions does not fit into replay: {self._stream_rows} rows for each of"
                f" {len(self._streams)} streams; raise capacity to at least {(length + 1) * len(self._streams)}"
            )
        if trajectory.is_start:
            self._make_room(stream, length + 1)
            self._streams[stream].append(episode)
            self._num_born += 1
        else:
            self._make_room(stream, trajectory.length)
        self._write(trajectory, episode.start + episode.length)
        episode.length = length
        self._index = None

    def sample(self, batch_size: int, length: int, *, burn_in: int = 0, generator: torch.Generator) -> Segment:
        """Draw B windows of `length` transitions on the replay's device.

        Each window holds one transition drawn as `recency` says, at a uniformly random position in
        [burn_in, length-1]; whatever of the window lies outside that transition's episode is zeros and not valid.

        Raises:
            ValueError: when nothing is stored, or burn_in leaves no position.
        """
        if not 0 <= burn_in < length:
            raise ValueError(f"burn_in = {burn_in}: expected 0 <= burn_in < length = {length}")
        index = self._current_index()
        episode, step = index.draw(batch_size, generator)
        position = torch.randint(burn_in, length, (batch_size,), generator=generator, device=self.device)
        return self._gather(index, episode, step - position, length)

    def sample_contexts(self, batch_size: int, context_length: int, generator: torch.Generator) -> Segment:
        """Draw B states from which a stored transition starts, each behind its K = `context_length` last transitions.

        Raises:
            ValueError: when nothing is stored.
        """
        index = self._current_index()
        episode, step = index.draw(batch_size, generator)
        return self._gather(index, episode, step - context_length, context_length)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the used rows on the CPU, episode by episode, with the episode table [E,3] and the ring's sizes."""
        table = self._table()
        rows = self._rows[self._used_rows(table)]
        return {
            "num_streams": len(self._streams),
            "stream_rows": self._stream_rows,
            "episodes": table,
            **{name: tensor.cpu() for name, tensor in rows.tensors()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Replace the content by what `state_dict` gave; what is sampled afterwards is the same to the bit.

        Raises:
            ValueError: when it was written with other sizes.
        """
        sizes = {"num_streams": len(self._streams), "stream_rows": self._stream_rows}
        for name, own in sizes.items():
            if state_dict[name] != own:
                raise ValueError(f"replay was saved with {name} = {state_dict[name]}, this one has {own}")
        for name, tensor in self._rows.tensors():
            saved = state_dict[name].shape[1:]
            if saved != tensor.shape[1:]:
                raise ValueError(f"replay was saved with {name} rows {list(saved)}, not {list(tensor.shape[1:])}")
        table = state_dict["episodes"]
        used = self._used_rows(table)
        for name, tensor in self._rows.tensors():
            tensor[used] = state_dict[name].to(tensor)
        for episodes in self._streams:
            episodes.clear()
        for born, (stream, start, length) in enumerate(table.tolist()):
            self._streams[stream].append(_Episode(born, stream, start, length))
        self._num_born = len(table)
        self._index = None

    def _next_row(self, stream: int) -> int:
        """The row behind the newest episode of `stream`."""
        episodes = self._streams[stream]
        return (episodes[-1].start + episodes[-1].length + 1) % self._stream_rows if episodes else 0

    def _open_episode(self, trajectory: Trajectory) -> _Episode:
        """The episode that `trajectory` goes on with."""
        stream = trajectory.stream
        if not self._streams[stream]:
            raise ValueError(f"stream {stream} goes on with an episode whose start was never stored")
        episode = self._streams[stream][-1]
        newest = torch.arange(episode.length - 1, episode.length + 1) + episode.start
        last = self._rows[self._ring_rows(stream, newest)].to("cpu")
        if bool(last.terminated[0] | last.truncated[0]):
            raise ValueError(f"stream {stream} goes on with an episode that has ended")
        if not torch.equal(last.state[1], trajectory.state[0]):
            raise ValueError(f"stream {stream} goes on from another state than its last trajectory ended in")
        return episode

    def _make_room(self, stream: int, num_rows: int) -> None:
        """Forget the oldest episodes of `stream` until `num_rows` more fit."""
        episodes = self._streams[stream]
        free = self._stream_rows - sum(episode.length + 1 for episode in episodes)
        while free < num_rows:
            free += episodes.popleft().length + 1

    def _write(self, trajectory: Trajectory, position: int) -> None:
        """Write T transitions and the final state into T+1 rows from `position` on."""
        rows = self._ring_rows(trajectory.stream, position + torch.arange(trajectory.length + 1))
        for name, storage in self._rows.tensors():
            values = getattr(trajectory, name)
            if name not in ("obs", "state"):
                values = torch.cat([values, torch.zeros_like(values[:1])])
            storage[rows] = values.to(storage)

    def _ring_rows(self, stream: int | Tensor, position: Tensor) -> Tensor:
        return (stream * self._stream_rows + position % self._stream_rows).to(self.device)

    def _table(self) -> Tensor:
        """[E,3] (stream, start, length) of every episode, oldest first, on the CPU."""
        episodes = sorted((e for episodes in self._streams for e in episodes), key=lambda episode: episode.born)
        return torch.tensor([(e.stream, e.start, e.length) for e in episodes], dtype=torch.long).reshape(-1, 3)

    def _used_rows(self, table: Tensor) -> Tensor:
        """The rows of the episodes in `table` [E,3], in order, final states included."""
        num_rows = table[:, 2] + 1
        first = torch.cumsum(num_rows, 0) - num_rows
        step = torch.arange(int(num_rows.sum())) - torch.repeat_interleave(first, num_rows)
        stream, start = (torch.repeat_interleave(table[:, i], num_rows) for i in (0, 1))
        return self._ring_rows(stream, start + step)

    def _current_index(self) -> EpisodeIndex:
        if not self.num_episodes:
            raise ValueError("replay is empty: collect episodes before sampling")
        if self._index is None:
            self._index = EpisodeIndex.build(self._table(), GROUP_WEIGHTS[self.config.recency], self.device)
        return self._index

    def _gather(self, index: EpisodeIndex, episode: Tensor, first: Tensor, length: int) -> Segment:
        """Windows of `length` transitions whose state 0 is step `first` [B] of row `episode` [B] of the index."""
        step = first[:, None] + torch.arange(length + 1, device=self.device)  # [B, T+1]
        total = index.length[episode][:, None]
        position = index.start[episode][:, None] + torch.minimum(step.clamp(min=0), total)
        rows = self._rows[self._ring_rows(index.stream[episode][:, None], position)]
        state_valid = (step >= 0) & (step <= total)
        valid = ((step >= 0) & (step < total))[:, :-1]
        return Segment(
            obs=_zero_unless(state_valid, rows.obs),
            state=_zero_unless(state_valid, rows.state),
            action=_zero_unless(valid, rows.action[:, :-1]),
            reward=_zero_unless(valid, rows.reward[:, :-1]),
            terminated=rows.terminated[:, :-1] & valid,
            valid=valid,
        )


def _empty_rows(spec: EnvSpec, num_rows: int, device: torch.device) -> _Rows:
    def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(num_rows, *sizes, dtype=dtype, device=device)

    return _Rows(
        obs=zeros(spec.num_agents, spec.obs_dim),
        state=zeros(spec.state_dim),
        action=zeros(spec.num_agents, spec.action_dim),
        reward=zeros(),
        terminated=zeros(dtype=torch.bool),
        truncated=zeros(dtype=torch.bool),
    )


def _zero_unless(keep: Tensor, values: Tensor) -> Tensor:
    """`values` [B,T,...] where `keep` [B,T], zeros elsewhere."""
    return values.masked_fill(~keep.reshape(*keep.shape, *[1] * (values.ndim - keep.ndim)), 0)
