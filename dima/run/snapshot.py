"""Nested state as plain tensors and JSON: what checkpoints and messages between processes are made of; none runs code.

A component's state is built of dicts, lists, tuples, tensors, numbers, strings, booleans and None. Its tensors go into
one safetensors file; its skeleton, with a reference where each tensor was, goes into JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

_TENSOR = "__tensor__"
_ITEMS = "__items__"
_TUPLE = "__tuple__"
_LENGTH_BYTES = 8


def flatten(state: Any, prefix: str = "state") -> tuple[Any, dict[str, Tensor]]:
    """Split `state` into a JSON-ready skeleton and its tensors by dotted name.

    Raises:
        TypeError: naming the place of a value that is neither.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(state, prefix, tensors), tensors


def restore(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flatten`."""
    if isinstance(skeleton, list):
        return [restore(value, tensors) for value in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if _TENSOR in skeleton:
        return tensors[skeleton[_TENSOR]]
    if _TUPLE in skeleton:
        return tuple(restore(value, tensors) for value in skeleton[_TUPLE])
    if _ITEMS in skeleton:
        return {key: restore(value, tensors) for key, value in skeleton[_ITEMS]}
    return {key: restore(value, tensors) for key, value in skeleton.items()}


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` to a safetensors file."""
    save_file(_unshared(tensors), path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU."""
    return load_file(path)


def pack(state: Any) -> bytes:
    """`state` as one message: the length of the skeleton, the skeleton, the tensors. A copy, wherever they are.

    Raises:
        TypeError: naming the place of a value that `flatten` refuses.
    """
    skeleton, tensors = flatten(state)
    text = json.dumps(skeleton).encode()
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + save(_unshared(tensors))


def unpack(message: bytes) -> Any:
    """The inverse of `pack`; tensors come out on the CPU."""
    end = _LENGTH_BYTES + int.from_bytes(message[:_LENGTH_BYTES], "little")
    return restore(json.loads(message[_LENGTH_BYTES:end]), load(message[end:]))


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` on the CPU, each with memory of its own: safetensors knows no sharing."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        cpu = tensor.detach().to("cpu").contiguous()
        if cpu.untyped_storage().data_ptr() in seen:
            cpu = cpu.clone()
        seen.add(cpu.untyped_storage().data_ptr())
        plain[name] = cpu
    return plain


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        while where in tensors:  # keys with dots in them can spell the same place
            where += "+"
        tensors[where] = value
        return {_TENSOR: where}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return _encode_dict(value, where, tensors)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    raise TypeError(f"{where} holds a {type(value).__name__}; a checkpoint keeps tensors, numbers, strings and lists")


def _encode_dict(value: dict[Any, Any], where: str, tensors: dict[str, Tensor]) -> Any:
    coded = [(key, _encode(item, f"{where}.{key}", tensors)) for key, item in value.items()]
    is_plain = all(isinstance(key, str) and not key.startswith("__") for key in value)
    return dict(coded) if is_plain else {_ITEMS: [[key, item] for key, item in coded]}
