"""A dataset folder gives back what was put in, bit for bit, or one line that names the file and what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import resource
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.datasets import edit_header, write_dataset
from worldmodel.atomic import write_whole, write_whole_binary
from worldmodel.contract.random_data import random_trajectory
from worldmodel.dataset import Dataset, read_dataset, require_same_task, select_steps
from worldmodel.episode_files import DatasetError, episode_name, write_episode
from worldmodel.types import EnvSpec, Trajectory

SPEC = EnvSpec("test/made-up", 2, 3, (2, 1), (1, 2), 9, appends_agent_id=True, versions=(("made-up", "1"),))


def episodes(*lengths: int, spec: EnvSpec = SPEC, seed: int = 0) -> list[Trajectory]:
    """Whole episodes of random numbers; every second one is truncated instead of terminated."""
    generator = torch.Generator().manual_seed(seed)
    made = [random_trajectory(spec, length, generator) for length in lengths]
    return [
        dataclasses.replace(episode, terminated=episode.truncated, truncated=episode.terminated) if i % 2 else episode
        for i, episode in enumerate(made)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of three episodes."""
    write_dataset(tmp_path / "data", SPEC, episodes(4, 5, 6))
    return tmp_path / "data"


def rewrite(folder: Path, number: int, **arrays: Any) -> None:
    """Replace arrays of an episode, as somebody with NumPy would."""
    file = folder / episode_name(number)
    with np.load(file) as saved:
        np.savez(file, **({name: saved[name] for name in saved.files} | arrays))


def arrays_of(folder: Path, number: int) -> dict[str, np.ndarray]:
    with np.load(folder / episode_name(number)) as saved:
        return {name: saved[name].copy() for name in saved.files}


def refused(folder: Path) -> str:
    """What reading says; one line."""
    with pytest.raises(DatasetError) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    state_dim=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    has_id=st.booleans(),
    seed=st.integers(0, 9),
)
def test_what_was_written_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, int]],
    state_dim: int,
    lengths: list[int],
    has_id: bool,
    seed: int,
) -> None:
    obs_sizes, action_sizes = zip(*sizes, strict=True)
    spec = EnvSpec("test/any", len(sizes), state_dim, obs_sizes, action_sizes, 9, has_id, versions=(("a", "2"),))
    written = episodes(*lengths, spec=spec, seed=seed)
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, spec, written)
    dataset = read_dataset(folder)
    assert dataset.spec == spec
    assert dataset.num_steps == sum(lengths)
    assert len(dataset.trajectories) == len(written)
    for number, (got, expected) in enumerate(zip(dataset.trajectories, written, strict=True)):
        for (name, tensor), (_, original) in zip(got.tensors(), expected.tensors(), strict=True):
            assert tensor.dtype == original.dtype, name
            assert torch.equal(tensor, original), name
        assert (got.seed, got.is_start, got.is_open) == (100 + number, True, False)


def test_the_arrays_are_what_the_format_says(folder: Path) -> None:
    """Anybody's NumPy reads them: names, shapes, float32."""
    got = {name: (array.shape, array.dtype.name) for name, array in arrays_of(folder, 0).items()}
    shapes = {"obs": (5, 2, 4), "state": (5, 3), "action": (4, 2, 2), "reward": (4,), "terminated": (4,)}
    expected = {name: (shape, "float32") for name, shape in {**shapes, "truncated": (4,)}.items()}
    assert got == expected


def test_the_fingerprint_is_of_all_episodes(folder: Path, tmp_path: Path) -> None:
    fingerprint = read_dataset(folder).fingerprint
    write_dataset(tmp_path / "same", SPEC, episodes(4, 5, 6))
    write_dataset(tmp_path / "swapped", SPEC, [episodes(4, 5, 6)[i] for i in (0, 2, 1)])
    assert read_dataset(tmp_path / "same").fingerprint == fingerprint
    assert read_dataset(tmp_path / "swapped").fingerprint != fingerprint


def _with(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


FAULTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "NaN in the state": ("state", _with((2, 1), np.nan), r"state\[2, 1\] is nan"),
    "NaN in an observation": ("obs", _with((0, 1, 0), np.nan), r"obs\[0, 1, 0\] is nan"),
    "NaN in an action": ("action", _with((1, 0, 0), np.nan), r"action\[1, 0, 0\] is nan"),
    "infinite reward": ("reward", _with(3, -np.inf), r"reward\[3\] is -inf"),
    "NaN as an end": ("terminated", _with(0, np.nan), "terminated holds other values than 0 and 1"),
    "half an end": ("truncated", _with(4, 0.5), "truncated holds other values than 0 and 1"),
    "an agent too many": ("obs", lambda array: np.repeat(array, 2, axis=1), r"obs has shape \[6, 4, 4\]"),
    "an observation too short": ("obs", lambda array: array[..., :-1], r"obs has shape \[6, 2, 3\]"),
    "a state too long": ("state", lambda array: np.repeat(array, 2, axis=1), r"state has shape \[6, 6\]"),
    "an action too few": ("action", lambda array: array[..., :1], r"action has shape \[5, 2, 1\]"),
    "a state missing at the end": ("state", lambda array: array[:-1], r"state has shape \[5, 3\]"),
    "an observation missing": ("obs", lambda array: array[1:], r"obs has shape \[5, 2, 4\]"),
    "a reward missing": ("reward", lambda array: array[:-1], r"reward has shape \[4\]"),
    "a reward for each agent": ("reward", lambda array: np.stack([array, array], 1), r"reward has shape \[5, 2\]"),
    "no axis at all": ("action", lambda array: array.sum(), "action"),
    "nothing in it": ("action", lambda array: array[:0], "at least one transition"),
    "an action outside": ("action", _with((4, 1, 1), -1.5), "action reaches 1.5 in magnitude"),
    "an end in the middle": ("terminated", _with(2, 1.0), "ends before its last step"),
    "no end": ("truncated", _with(4, 0.0), "cut off: its last step neither terminates nor truncates"),
    "float64": ("state", lambda array: array.astype(np.float64), "state has dtype float64, expected float32"),
    "text": ("reward", lambda array: array.astype(str), "reward has dtype <U"),
    "complex": ("reward", lambda array: array.astype(np.complex64), "reward has dtype complex64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_file(fault: str, folder: Path) -> None:
    name, change, message = FAULTS[fault]
    rewrite(folder, 1, **{name: change(arrays_of(folder, 1)[name])})
    with pytest.raises(DatasetError, match=message):
        read_dataset(folder)
    assert refused(folder).startswith(str(folder / "episodes/00001.npz"))


def test_an_array_that_is_missing_is_named(folder: Path) -> None:
    arrays: dict[str, Any] = arrays_of(folder, 1)
    del arrays["reward"]
    np.savez(folder / episode_name(1), **arrays)
    assert "00001.npz is damaged: it has no array 'reward'" in refused(folder)


class Unsafe:
    """Anything that is loaded calls this."""

    loaded = False

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _note_loading, ()


def _note_loading() -> None:
    Unsafe.loaded = True


def test_objects_in_an_array_are_never_loaded(folder: Path) -> None:
    trap = np.empty(1, dtype=object)
    trap[0] = Unsafe()
    rewrite(folder, 1, reward=trap)
    assert "00001.npz is cut off or damaged: Object arrays cannot be loaded" in refused(folder)
    np.save(folder / "episodes/trap.npy", trap, allow_pickle=True)
    (folder / "episodes/trap.npy").replace(folder / episode_name(1))
    refused(folder)
    assert not Unsafe.loaded
    np.load(folder / episode_name(1), allow_pickle=True)
    assert Unsafe.loaded, "the trap works"


def test_a_file_cut_anywhere_is_named(folder: Path) -> None:
    file = folder / episode_name(1)
    content = file.read_bytes()
    for length in [*range(0, len(content), 197), len(content) - 1]:
        file.write_bytes(content[:length])
        assert "00001.npz is cut off or damaged" in refused(folder), length


def test_any_changed_byte_is_noticed(folder: Path) -> None:
    file = folder / episode_name(1)
    content = file.read_bytes()
    for place in range(0, len(content), 11):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        assert "00001.npz" in refused(folder), place
    file.write_bytes(content)
    read_dataset(folder)


def test_other_numbers_are_noticed(folder: Path) -> None:
    rewrite(folder, 1, reward=arrays_of(folder, 1)["reward"] + 1)
    assert "00001.npz was altered: it does not match its checksum in dataset.json" in refused(folder)


def test_other_files_in_place_of_an_episode_are_noticed(folder: Path) -> None:
    file = folder / episode_name(1)
    for content in (b"", b"PK", b"hello", b"\x93NUMPY\x01", b"\x80\x04}."):
        file.write_bytes(content)
        assert "00001.npz" in refused(folder)
    np.save(folder / "one.npy", np.zeros(3, dtype=np.float32))
    (folder / "one.npy").replace(file)
    assert "00001.npz is cut off or damaged: a single array" in refused(folder)


def test_another_length_than_the_header_says_is_noticed(folder: Path) -> None:
    write_episode(folder, 1, episodes(3)[0])
    assert "00001.npz holds 3 steps, dataset.json says 5" in refused(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / episode_name(2)).unlink()
    assert refused(folder) == f"{folder} is cut off: episodes/00002.npz is missing"


def test_an_episode_missing_from_the_list_is_noticed(folder: Path) -> None:
    edit_header(folder, lambda header: header["episodes"].pop())
    assert "lists 2 episodes, but num_episodes is 3" in refused(folder)


def test_an_unfinished_dataset_says_how_to_finish_it(folder: Path) -> None:
    edit_header(folder, lambda header: header.update(complete=False, episodes=[]))
    (folder / episode_name(1)).unlink()
    assert refused(folder) == f"{folder} is unfinished: 2 of 3 episodes; finish it: dima collect resume={folder}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("null", "is damaged"),
        ("3", "is damaged"),
        ("\xff", "is damaged"),
        ("{}", "is damaged: it has no 'schema'"),
        ('{"schema": 1, "env_id": 3}', "is damaged: it has env_id = 3, expected str"),
        ('{"schema": 2}', "has schema 2, this program reads schema 1"),
    ],
)
def test_a_header_that_is_none_is_refused(content: str, message: str, folder: Path) -> None:
    (folder / "dataset.json").write_text(content, encoding="latin-1")
    assert f"dataset.json {message}" in refused(folder)


def test_no_dataset_says_what_makes_one(tmp_path: Path) -> None:
    nowhere = tmp_path / "x"
    assert refused(nowhere) == f"no dataset at {str(nowhere)!r}: it has no dataset.json (dima collect makes one)"


def _places(node: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of nested objects is; of a list, only its first element is looked into."""
    items = node.items() if isinstance(node, dict) else enumerate(node[:1]) if isinstance(node, list) else ()
    return [path for key, value in items for path in ((*place, key), *_places(value, (*place, key)))]


READ = ("env_id", "spec", "num_episodes", "complete", "episodes")
"""What reading a dataset needs of its header; who collects it reads more."""


@pytest.mark.parametrize("value", [None, "two", -1, 0.5, [], {}, ["x", 3]], ids=repr)
def test_a_header_with_a_wrong_value_is_a_clear_error_or_the_same_data(value: Any, folder: Path) -> None:
    header = json.loads((folder / "dataset.json").read_text())
    for place in _places(header):
        if place[0] in READ:
            edit_header(folder, lambda changed, place=place: _put(changed, place, value))
            with contextlib.suppress(DatasetError):
                read_dataset(folder).held_out(0.4)
            (folder / "dataset.json").write_text(json.dumps(header))


def test_a_header_without_a_key_is_a_clear_error(folder: Path) -> None:
    header = json.loads((folder / "dataset.json").read_text())
    needed = [
        ("schema",),
        *((name,) for name in READ),
        *(("episodes", 0, name) for name in ("seed", "steps", "sha256", "behaviour")),
    ]
    needed += [("spec", name) for name in ("env_id", "num_agents", "state_dim", "obs_sizes", "action_sizes")]
    for place in needed:
        edit_header(folder, lambda changed, place=place: _drop(changed, place))
        assert "dataset.json" in refused(folder), place
        (folder / "dataset.json").write_text(json.dumps(header))


def _parent(node: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        node = node[key]
    return node


def _put(node: Any, place: tuple[Any, ...], value: Any) -> None:
    _parent(node, place)[place[-1]] = value


def _drop(node: Any, place: tuple[Any, ...]) -> None:
    del _parent(node, place)[place[-1]]


def held_out(behaviours: list[str], share: float) -> tuple[int, ...]:
    trajectories = tuple(episodes(*[1] * len(behaviours)))
    header = {"episodes": [{"behaviour": behaviour} for behaviour in behaviours]}
    return Dataset(Path("data"), header, SPEC, trajectories).held_out(share)


@given(
    behaviours=st.lists(st.sampled_from("abc"), min_size=2, max_size=20),
    share=st.floats(0.01, 0.99),
)
def test_held_out_episodes_are_spread_over_who_acted(behaviours: list[str], share: float) -> None:
    total = len(behaviours)
    count = max(1, round(share * total))
    if count >= total:
        with pytest.raises(DatasetError, match=f"has {total} episodes: too few"):
            held_out(behaviours, share)
        return
    kept = held_out(behaviours, share)
    assert list(kept) == sorted(set(kept))
    assert len(kept) == count
    assert set(kept) < set(range(total))
    taken, all_ = Counter(behaviours[number] for number in kept), Counter(behaviours)
    for name, number in all_.items():
        assert abs(taken[name] - number * count / total) < 1 + 1e-9, (behaviours, kept)


def test_held_out_is_a_function_of_the_dataset(folder: Path) -> None:
    first, again = read_dataset(folder), read_dataset(folder)
    assert first.held_out(0.3) == again.held_out(0.3) != ()
    assert first.held_out(0.0) == ()


def test_selected_steps_are_the_first(folder: Path) -> None:
    whole = read_dataset(folder).trajectories
    for num_steps in range(1, 16):
        chosen = select_steps(whole, num_steps)
        assert sum(part.length for part in chosen) == num_steps
        for part, original in zip(chosen, whole, strict=False):
            part.validate(SPEC)
            assert torch.equal(part.state, original.state[: part.length + 1])
            assert torch.equal(part.obs, original.obs[: part.length + 1])
            assert torch.equal(part.action, original.action[: part.length])
            assert torch.equal(part.reward, original.reward[: part.length])
    assert [part.is_open for part in select_steps(whole, 8)] == [False, True]
    with pytest.raises(ValueError, match="asked for 16 steps, but the training episodes hold 15"):
        select_steps(whole, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "test/other"}, "env_id is 'test/made-up', that of run X 'test/other'"),
        ({"state_dim": 4}, "state_dim is 3, that of run X 4"),
        ({"obs_sizes": (2, 2)}, r"obs_sizes is \(2, 1\), that of run X \(2, 2\)"),
        ({"action_sizes": (1, 1)}, "action_sizes is"),
        ({"appends_agent_id": False}, "appends_agent_id is True, that of run X False"),
        ({"num_agents": 1, "obs_sizes": (2,), "action_sizes": (1,)}, "num_agents is 2, that of run X 1"),
    ],
)
def test_another_task_is_refused_by_its_first_difference(changes: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(DatasetError, match=f"data is data of another task: {message}"):
        require_same_task(read_dataset(folder), dataclasses.replace(SPEC, **changes), "run X")


def test_another_version_is_the_same_task(folder: Path) -> None:
    require_same_task(read_dataset(folder), dataclasses.replace(SPEC, versions=(("made-up", "2"),)), "run X")


def _write_on_a_full_disk(file: Path, answer: Any) -> None:
    """In a process of its own: files end at 1000 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_whole(file, "new" * 1000)
        answer.put("written")
    except OSError as error:
        answer.put(type(error).__name__)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, "old")
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=_write_on_a_full_disk, args=(file, answer))
    child.start()
    assert answer.get() == "OSError"
    child.join(20)
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_writing_that_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, "old")

    def write(opened: Any) -> None:
        opened.write(b"new, but")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole_binary(file, write)
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
