"""What a call computes and moves, counted for `dima bench` operation by operation.

Knows nothing of what the calls do.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from dima.run.bench_timing import Call, Prepared


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one call computes and moves."""

    flops: int
    """Floating-point operations of matrix products, convolutions and attention, a multiply-add counting as two."""
    bytes: int
    """What goes into and out of its operations, each tensor once an operation; views are free."""


def count_work(call: Call) -> Counts:
    """Run `call` once more, slowly, and count what its operations do."""
    if isinstance(call, Prepared):
        before, own = count_work(call.prepare), count_work(call.call)
        return Counts(own.flops + before.flops // call.serves, own.bytes + before.bytes // call.serves)
    flops = FlopCounterMode(display=False, custom_mapping=_NOT_IN_TORCH)
    flops.mod_tracker = _NoModules()  # type: ignore[assignment]
    traffic = _Traffic()
    with traffic, flops:
        call()
    return Counts(int(flops.get_total_flops()), traffic.bytes)


class _NoModules:
    """In the place of torch's module tracker, which asks views of parameters for a gradient that they do not have."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _product_flops(total: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch's table has the attention kernels of GPUs only, and no product that adds in place (seen in 2.13).
_NOT_IN_TORCH: dict[Any, Any] = {
    torch.ops.aten.addmm_: _product_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


_LOOK_UPS = {"index", "index_select", "gather", "embedding"}
_ENTRIES = {"index_put", "index_put_", "_index_put_impl_"}
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write, as if each went to memory and back.

    Operations that a compiler has fused show what they still read and write; caches are not considered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1] if "." in str(func) else str(func)
        if name in _LOOK_UPS:  # reads of its source only what it returns
            self.bytes += 2 * _num_bytes(out) + _num_bytes(args[1:])
        elif name in _ENTRIES:  # writes of its target only what it is given
            self.bytes += 2 * _num_bytes(args[2:]) + _num_bytes(args[1])
        elif not getattr(func, "is_view", False) and name not in _FREE:
            self.bytes += _num_bytes((args, kwargs)) + _written(func, args, out)
        return out


def _written(func: Any, args: Any, out: Any) -> int:
    """Bytes of what an operation writes: the arguments it changes, or else its results."""
    schema = getattr(func, "_schema", None)
    changed = [] if schema is None else [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    if any(changed):
        return sum(_num_bytes(value) for value, is_changed in zip(args, changed, strict=False) if is_changed)
    return _num_bytes(out)


def _num_bytes(tree: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    # An expanded tensor is no larger than what lies behind it.
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)
