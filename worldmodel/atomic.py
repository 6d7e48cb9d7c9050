"""Files that are replaced as a whole: whoever reads one sees the old content or the new, never a part of either."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` in one move, on the disk before it returns."""
    write_whole_binary(path, lambda file: file.write(text.encode()))


def write_whole_binary(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace the file at `path` by what `write` puts into the open file; if that fails, all stays as it was."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
