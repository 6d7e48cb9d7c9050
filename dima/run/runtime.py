"""Where and with which random numbers a run computes: device, threads, seeds and named generators.

Every stream of random numbers is derived from the run's one seed and a name by a pure function, so adding a stream
never shifts another. Knows nothing of models or environments.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

DeviceChoice = Literal["auto", "cpu", "cuda"]


def choose_device(choice: DeviceChoice) -> torch.device:
    """The device that `choice` names; `auto` is a GPU where there is one.

    Raises:
        ValueError: when `cuda` is asked for and there is none.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': torch finds no CUDA device here; use device=auto or device=cpu")
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def limit_threads(num_threads: int) -> None:
    """Let torch use `num_threads` CPU threads.

    Sums are split among threads, so the last bits of a result depend on this number: a resumed run restores it.
    """
    torch.set_num_threads(num_threads)


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free instead of giving it back to the system, where it is glibc's.

    Activations of a few megabytes are made and freed all the time, and every fresh page costs a fault: an eighth of
    imagination's time. Resident memory stays at its peak instead of going up and down below it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none to ask
        return
    # Older versions refuse a threshold above 32 MiB; without one the other setting would do harm.
    if mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def default_threads() -> int:
    """CPU threads where nobody says: OMP_NUM_THREADS if it is set, else the cores that may be used, at most 4.

    Batches here are small; on a server with many cores, more threads wait for each other. The 4 is a guess.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) >= 1:
        return int(asked)
    return min(available_cores(), 4)


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def derive_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run seeded with `seed`: a pure function, the same everywhere."""
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(2, np.uint64)
    return int(words[0] >> np.uint64(1))


def derive_seeds(seed: int, name: str, count: int) -> list[int]:
    """`count` distinct 31-bit seeds for the stream `name`, as simulators take them; the first few never change."""
    source = np.random.default_rng(derive_seed(seed, name))
    seeds: dict[int, None] = {}
    while len(seeds) < count:
        seeds[int(source.integers(2**31))] = None
    return list(seeds)


def fresh_generator(seed: int, name: str, device: torch.device | str) -> torch.Generator:
    """A new generator on `device`, at the start of the stream `name` of `seed`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, name))
    return generator


class Randomness:
    """All generators of a run: the named ones, and torch's own that module initialisation and dropout draw from."""

    def __init__(self, seed: int, device: torch.device) -> None:
        """Seed torch's default generators for `device`; named ones are created on first use."""
        self.seed = seed
        self.device = device
        self._named: dict[str, torch.Generator] = {}
        torch.manual_seed(derive_seed(seed, "torch"))

    def generator(self, name: str, device: torch.device | str | None = None) -> torch.Generator:
        """The generator of the stream `name`, on `device` or else the run's; the same object at every call."""
        if name not in self._named:
            self._named[name] = self.fresh(name, device)
        return self._named[name]

    def fresh(self, name: str, device: torch.device | str | None = None) -> torch.Generator:
        """A new generator at the start of the stream `name`, for work that must not depend on what ran before."""
        return fresh_generator(self.seed, name, device or self.device)

    def state_dict(self) -> dict[str, Any]:
        """Where every generator stands."""
        state: dict[str, Any] = {"named": {name: (g.device.type, g.get_state()) for name, g in self._named.items()}}
        state["torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every generator back to where `state_dict` found it.

        The same generator objects go on, so whoever holds one need not be told. A run that moves to another kind of
        device starts its streams afresh there: their states do not translate.
        """
        named: dict[str, tuple[str, Tensor]] = state["named"]
        for name, (device_type, position) in named.items():
            generator = self.generator(name)
            if generator.device.type == device_type:
                generator.set_state(position)
        torch.set_rng_state(state["torch"])
        if "cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
