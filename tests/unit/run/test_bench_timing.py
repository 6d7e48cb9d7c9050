"""What `dima bench` times and compares, against numbers that can be worked out by hand."""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection

import pytest
import torch

from dima.run.bench_machine import Machine, measure_machine
from dima.run.bench_timing import MemoryWatch, Prepared, Timing, median, resident_kb, speedup, time_call, time_twins
from dima.run.bench_work import Counts, count_work

CPU = torch.device("cpu")


def test_twins_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    times = time_twins({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU)
    assert order == ["a", "b"] * 3
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}


def test_medians_and_the_speedup_go_round_by_round() -> None:
    slow = [Timing(1.0, 4.0), Timing(9.0, 40.0), Timing(2.0, 6.0)]
    fast = [Timing(1.0, 2.0), Timing(1.0, 10.0), Timing(1.0, 2.0)]
    assert median(slow) == Timing(2.0, 6.0)
    assert speedup(slow, fast, "cpu") == 3.0
    assert speedup(slow, fast, "wall") == 2.0


def test_sleeping_costs_time_but_no_core() -> None:
    (timing,) = time_twins({"sleep": lambda: time.sleep(0.05)}, 1, CPU)["sleep"]
    assert timing.wall_s >= 0.05
    assert timing.cpu_s < 0.03


def test_a_preparation_is_shared_out_among_the_calls_that_it_serves() -> None:
    timing = time_call(Prepared(lambda: time.sleep(0.4), lambda: time.sleep(0.02), serves=8), CPU)
    assert 0.07 <= timing.wall_s < 0.2
    order: list[str] = []
    Prepared(lambda: order.append("prepare"), lambda: order.append("call"), serves=8)()
    assert order == ["prepare", "call"], "who calls it pays for all"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the clocks of other processes")
def test_what_workers_compute_counts() -> None:
    ask, answer = multiprocessing.get_context("fork").Pipe()
    worker = multiprocessing.get_context("fork").Process(target=work_when_asked, args=(answer,), daemon=True)
    worker.start()

    def work() -> None:
        ask.send(0.1)
        ask.recv()

    timing = time_call(work, CPU)
    ask.close()
    worker.terminate()
    worker.join()
    assert 0.09 < timing.cpu_s < 0.2


def work_when_asked(connection: Connection) -> None:
    end = time.process_time() + connection.recv()
    while time.process_time() < end:
        pass
    connection.send(None)
    time.sleep(60)


def test_memory_rises_by_what_a_call_holds_at_most_and_the_peak_is_not_forgotten() -> None:
    watch = MemoryWatch(CPU)
    megabyte = 2**18  # of float32
    assert 38 < watch.rise_mb(lambda: torch.ones(40 * megabyte)) < 50
    high = watch.peak_mb()
    assert watch.rise_mb(lambda: torch.ones(2 * megabyte)) < 10
    assert high["host"] is not None
    assert watch.peak_mb()["host"] == pytest.approx(high["host"], rel=0.02)
    assert high["host"] * 1024 >= resident_kb() - 1024
    assert high["device"] is None


def test_a_large_product_reaches_the_machine_s_rate() -> None:
    torch.set_num_threads(1)
    machine = measure_machine(CPU, with_bfloat16=False)
    assert machine.matrix_gflops > 0.5
    assert machine.memory_gb_per_s > 0.5
    assert "matrix_gflops_bfloat16" not in machine.as_json()
    a = torch.randn(512, 512)
    timing = median(time_twins({"mm": lambda: a @ a}, 5, CPU)["mm"])
    shares = machine.shares(count_work(lambda: a @ a), timing, CPU, is_bfloat16=False)
    assert 0.1 < shares["share_of_matrix_rate"] <= 1.5


def test_shares_are_of_the_rate_of_the_precision_and_of_cpu_time() -> None:
    machine = Machine(matrix_gflops=10.0, memory_gb_per_s=5.0, threads=1, matrix_gflops_bfloat16=40.0)
    counts, timing = Counts(flops=10**10, bytes=10**9), Timing(wall_s=9.0, cpu_s=2.0)
    assert machine.shares(counts, timing, CPU, is_bfloat16=False) == {
        "share_of_matrix_rate": 0.5,
        "share_of_bandwidth": 0.1,
    }
    assert machine.shares(counts, timing, CPU, is_bfloat16=True)["share_of_matrix_rate"] == 0.125
    plain = dataclasses.replace(machine, matrix_gflops_bfloat16=None)
    assert plain.shares(counts, timing, CPU, is_bfloat16=True)["share_of_matrix_rate"] == 0.5
