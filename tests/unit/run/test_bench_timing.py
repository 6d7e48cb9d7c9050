"""What `dima bench` counts and compares, against numbers that can be worked out by hand."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch import nn

from dima.run.bench_machine import Machine, measure_machine
from dima.run.bench_timing import Counts, MemoryWatch, Timing, count_work, median, resident_kb, speedup, time_twins

CPU = torch.device("cpu")
BATCH, WIDTHS = 5, (7, 11, 3)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(*WIDTHS[:2]), nn.ReLU(), nn.Linear(*WIDTHS[1:]))


def products(batch: int) -> list[int]:
    """Floating-point operations of each layer's product."""
    return [2 * batch * inside * outside for inside, outside in zip(WIDTHS, WIDTHS[1:], strict=False)]


def test_flops_of_an_mlp_are_those_of_its_products() -> None:
    model, x = mlp(), torch.randn(BATCH, WIDTHS[0])
    with torch.no_grad():
        assert count_work(lambda: model(x)).flops == sum(products(BATCH))


def test_flops_of_learning_are_three_times_as_many_but_for_the_gradient_of_the_input() -> None:
    model, x = mlp(), torch.randn(BATCH, WIDTHS[0])
    first, second = products(BATCH)
    assert count_work(lambda: model(x).sum().backward()).flops == 3 * (first + second) - first


def test_attention_on_a_cpu_counts() -> None:
    batch, heads, length, width = 2, 4, 9, 8
    q, k, v = (torch.randn(batch, heads, length, width) for _ in range(3))
    attend = nn.functional.scaled_dot_product_attention
    one_way = 2 * 2 * batch * heads * length * length * width
    assert count_work(lambda: attend(q, k, v)).flops == one_way
    learned = q.clone().requires_grad_()
    assert count_work(lambda: attend(learned, k, v).sum().backward()).flops > 2 * one_way


def test_bytes_are_what_operations_read_and_write() -> None:
    a, b = torch.ones(1000), torch.ones(1000)
    assert count_work(lambda: torch.add(a, b)).bytes == 3 * 4000
    assert count_work(lambda: a.view(10, 100).t()).bytes == 0
    assert count_work(lambda: a.add_(b)).bytes == 3 * 4000, "it reads both and writes one"
    assert count_work(lambda: torch.ones(1).expand(1000) + a).bytes < 2 * 4000 + 100, "expanding adds nothing"


def test_looking_up_a_few_rows_does_not_count_the_whole_table() -> None:
    table, rows = torch.zeros(10_000, 8), torch.tensor([3, 5])
    assert count_work(lambda: table[rows]).bytes == 2 * (2 * 8 * 4) + 2 * 8
    value = torch.ones(2, 8)

    def write() -> None:
        table[rows] = value

    assert count_work(write).bytes == 2 * (2 * 8 * 4) + 2 * 8


def test_twins_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    times = time_twins({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU)
    assert order == ["a", "b"] * 3
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}


def test_medians_and_the_speedup_go_round_by_round() -> None:
    slow = [Timing(1.0, 4.0), Timing(9.0, 40.0), Timing(2.0, 6.0)]
    fast = [Timing(1.0, 2.0), Timing(1.0, 10.0), Timing(1.0, 2.0)]
    assert median(slow) == Timing(2.0, 6.0)
    assert speedup(slow, fast, CPU) == 3.0


def test_sleeping_costs_time_but_no_core() -> None:
    (timing,) = time_twins({"sleep": lambda: time.sleep(0.05)}, 1, CPU)["sleep"]
    assert timing.wall_s >= 0.05
    assert timing.cpu_s < 0.03


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


def test_products_that_add_in_place_or_into_an_output_count_as_any_other() -> None:
    total, a, b = torch.zeros(3, 5), torch.randn(3, 4), torch.randn(4, 5)

    with torch.inference_mode():
        assert count_work(lambda: total.addmm_(a, b)).flops == 2 * 3 * 4 * 5
        assert count_work(lambda: torch.addmm(total, a, b, out=torch.empty(3, 5))).flops == 2 * 3 * 4 * 5
        assert count_work(lambda: torch.nn.functional.linear(a, b.t())).flops == 2 * 3 * 4 * 5


def test_a_view_of_a_parameter_inside_a_module_can_be_counted() -> None:
    layer, parameter = torch.nn.Linear(4, 5), torch.nn.Parameter(torch.randn(1, 4))

    with torch.inference_mode():
        assert count_work(lambda: layer(parameter.expand(3, -1))).flops == 2 * 3 * 4 * 5
