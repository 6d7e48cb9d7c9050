"""What `dima bench` counts, against numbers that can be worked out by hand."""

from __future__ import annotations

import torch
from torch import nn

from dima.run.bench_timing import Prepared
from dima.run.bench_work import Counts, count_work

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


def test_a_preparation_counts_by_its_share() -> None:
    a, b = torch.ones(8, 8), torch.ones(8)
    work = count_work(Prepared(lambda: a @ a, lambda: b + b, serves=4))
    assert work == Counts(flops=2 * 8**3 // 4, bytes=3 * 8 * 8 * 4 // 4 + 3 * 8 * 4)
