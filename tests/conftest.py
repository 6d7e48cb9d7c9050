"""What every test starts from: the same first weights, few and repeatable random examples, no GPU where none is."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

from envs.smax import PYTHON_VARIABLE

settings.register_profile("repeatable", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _same_initial_weights() -> None:
    """Modules draw their first weights from torch's default generator; nothing else may."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs something that this machine lacks, also when `-m` asks for it."""
    lacking = {
        "gpu": None if torch.cuda.is_available() else "no CUDA device",
        "smax": None if os.environ.get(PYTHON_VARIABLE) else f"{PYTHON_VARIABLE} names no Python with jaxmarl",
    }
    for item in items:
        for marker, reason in lacking.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
