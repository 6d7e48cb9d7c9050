"""Nested state to tensors and JSON and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dima.run.snapshot import flatten, pack, read_tensors, restore, unpack, write_tensors

TENSORS = st.tuples(
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]),
    st.lists(st.integers(0, 3), max_size=3),
).map(lambda drawn: torch.ones(drawn[1]).to(drawn[0]))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.text(max_size=4) | st.integers(0, 9) | st.sampled_from(["__tensor__", "__items__", "a.b", "a", "b"])
STATES = st.recursive(
    TENSORS | PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.lists(inner, max_size=2).map(lambda items: tuple(items))
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(STATES)
def test_any_state_comes_back_through_the_files(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    file = tmp_path_factory.mktemp("snapshot") / "x.safetensors"
    skeleton, tensors = flatten(state)
    write_tensors(file, tensors)
    assert same(restore(json.loads(json.dumps(skeleton)), read_tensors(file)), state)


@given(STATES)
def test_any_state_comes_back_from_a_message(state: Any) -> None:
    assert same(unpack(pack(state)), state)


def test_a_message_is_a_copy() -> None:
    weight = torch.ones(2)
    message = pack({"a": weight, "b": weight[:1]})
    weight.zero_()
    assert same(unpack(message), {"a": torch.ones(2), "b": torch.ones(1)})


def test_an_optimiser_comes_back() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    skeleton, tensors = flatten(optimizer.state_dict())
    assert same(restore(json.loads(json.dumps(skeleton)), tensors), optimizer.state_dict())


def test_views_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    write_tensors(tmp_path / "x", {"head": base[:2], "tail": base[4:], "column": base.reshape(2, 3)[:, 1]})
    read = read_tensors(tmp_path / "x")
    assert [read[name].tolist() for name in ("head", "tail", "column")] == [[0, 1], [4, 5], [1, 4]]


def test_what_is_neither_tensor_nor_json_is_refused_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"state\.a\.1 holds a set"):
        flatten({"a": [1, {2}]})
