"""The letters that shapes are written in, and one check for the borders of the package.

Every public docstring writes shapes with these letters. Batch first, then time, then agent, everywhere.
Knows nothing of models or environments.
"""

from __future__ import annotations

from torch import Tensor

LETTERS: dict[str, str] = {
    "B": "batch (rollouts, segments or environments)",
    "T": "time: T actions lie between T+1 states",
    "K": "context: real transitions before imagination starts (K+1 states)",
    "H": "horizon: imagined transitions",
    "N": "agents",
    "O": "local observation of one agent, padded to the largest",
    "S": "global state",
    "A": "action of one agent, padded to the largest, in [-1, 1]",
    "F": "what one actor sees",
    "C": "what the critic sees",
    "M": "samples drawn for one input",
}


def check_shape(name: str, tensor: Tensor, pattern: str, **sizes: int) -> dict[str, int]:
    """Raise unless `tensor` has the axes of `pattern`, and return the size of every letter.

    Args:
        name: what to call the tensor in the message.
        tensor: the tensor to check.
        pattern: axes separated by blanks: a letter (`B`), a letter plus a number (`T+1`) or a number.
        sizes: letters whose size is known already.

    Raises:
        ValueError: when the number of axes or any size disagrees; names what was got and expected.
    """
    axes = pattern.split()
    got = tuple(tensor.shape)
    if len(got) != len(axes):
        raise ValueError(f"{name} has shape {list(got)}, expected {len(axes)} axes [{', '.join(axes)}]")
    known = dict(sizes)
    for axis, size in zip(axes, got, strict=True):
        if axis.isdigit():
            expected = int(axis)
        else:
            letter, _, extra = axis.partition("+")
            expected = known.setdefault(letter, size - int(extra or 0)) + int(extra or 0)
        if size != expected:
            wanted = ", ".join(axes)
            given = ", ".join(f"{k}={v}" for k, v in sizes.items())
            raise ValueError(
                f"{name} has shape {list(got)}, expected [{wanted}]{' with ' + given if given else ''}:"
                f" axis {axis} is {size}, not {expected}"
            )
    return known
