"""Twins: a stage beside itself without the engine."""

from __future__ import annotations

import time

import pytest
import torch

from dima.run.bench_machine import Machine
from dima.run.bench_measure import Stage, Twin, measure_stage
from dima.run.bench_timing import MemoryWatch

CPU = torch.device("cpu")
MACHINE = Machine(matrix_gflops=50.0, memory_gb_per_s=10.0, threads=1)


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_stage_is_timed_beside_its_twin() -> None:
    order: list[str] = []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        busy(seconds)

    stage = Stage("imagine", lambda: call("own", 0.01), 30, "steps", twin=Twin("eager", lambda: call("twin", 0.03)))
    record = measure_stage(stage, 3, CPU, MemoryWatch(CPU)).as_json(MACHINE, CPU, is_bfloat16=False)
    assert order[:8] == ["own", "twin"] * 4
    assert 2.0 < record["speedup"] < 4.0
    assert record["speedup"] == record["speedup_cpu"]
    assert record["twin"] == "eager"
    assert record["eager"]["cpu_ms"] > record["cpu_ms"] > 9
    assert 1000 < record["per_core_s"] <= 3000


def test_a_stage_without_a_twin_says_nothing_of_one() -> None:
    began: list[int] = []
    stage = Stage("policy", lambda: torch.ones(4), 1, "updates", before=lambda: began.append(1))
    record = measure_stage(stage, 1, CPU, MemoryWatch(CPU)).as_json(MACHINE, CPU, is_bfloat16=False)
    assert began == [1]
    assert not {"twin", "eager", "speedup"} & set(record)


def test_the_counted_work_of_a_call_that_hides_it_is_its_twin_s() -> None:
    a = torch.ones(8, 8)
    stage = Stage("imagine", lambda: None, 1, "steps", twin=Twin("eager", lambda: a @ a))
    assert measure_stage(stage, 1, CPU, MemoryWatch(CPU)).counts.flops == 2 * 8**3


def test_twins_that_differ_in_wall_time_are_compared_by_it() -> None:
    stage = Stage("fit", lambda: None, 1, "updates", twin=Twin("in_turn", lambda: time.sleep(0.02), by_wall=True))
    record = measure_stage(stage, 2, CPU, MemoryWatch(CPU)).as_json(MACHINE, CPU, is_bfloat16=False)
    assert record["in_turn"]["ms"] >= 20
    assert record["speedup"] == record["speedup_wall"] > record["speedup_cpu"]


def test_a_call_that_works_elsewhere_is_counted_by_what_does_the_same_here() -> None:
    a = torch.ones(8, 8)
    stage = Stage("fit", lambda: None, 1, "updates", counted=lambda: a @ a)
    assert measure_stage(stage, 1, CPU, MemoryWatch(CPU)).counts.flops == 2 * 8**3


def test_a_stage_that_fails_is_ended_all_the_same() -> None:
    def fail() -> None:
        raise FloatingPointError

    ended: list[int] = []
    stage = Stage("collect", fail, 1, "env steps", after=lambda: ended.append(1))
    with pytest.raises(FloatingPointError):
        measure_stage(stage, 1, CPU, MemoryWatch(CPU))
    assert ended == [1]
