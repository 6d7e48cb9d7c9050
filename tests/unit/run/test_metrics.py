"""What a round measured, averaged."""

from __future__ import annotations

import time

import pytest
import torch

from dima.run.metrics import RoundMetrics

CPU = torch.device("cpu")


def test_means_by_name_beside_plain_numbers() -> None:
    metrics = RoundMetrics(CPU)
    for value in (1.0, 2.0, 6.0):
        metrics.add("world_model", {"denoiser_loss": torch.tensor(value)})
    metrics.add("", {"policy/entropy": torch.tensor(0.5, dtype=torch.float64)})
    metrics.put("episode/return", -3.0)
    assert metrics.collect() == {"world_model/denoiser_loss": 3.0, "policy/entropy": 0.5, "episode/return": -3.0}


def test_times_add_up() -> None:
    metrics = RoundMetrics(CPU)
    for _ in range(2):
        with metrics.timed("collect"):
            time.sleep(0.01)
    assert metrics.seconds("collect") >= 0.02
    assert metrics.collect() == {"time/collect_s": metrics.seconds("collect")}


def test_a_figure_that_is_not_finite_is_named() -> None:
    metrics = RoundMetrics(CPU)
    metrics.add("critic", {"loss": torch.tensor(float("nan"))})
    with pytest.raises(FloatingPointError, match="critic/loss is nan"):
        metrics.collect()
