"""RESULTS/main.png and RESULTS/effects.png from RESULTS/cells/*.json.

    python benchmarks/prediction/figures.py RESULTS

main: for every task the error by reveal and order, and below it the action gains. effects: the error of one order
against the transitions, updates and denoising steps, where a study varied them.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measured_cells import AMOUNTS, Effect, MeasuredCell, asked_cells, by_reveal, effects, errors_at, standard

from dima.run.prediction_figures.style import BASELINE_LOOKS, RC, SMALL, WIDTH, Look, head, order_looks, save

MARK = 15
"""Imagined steps over which errors are summed; the paper's Table 8 has 15 and 20."""

SHOWN_ORDERS = ("descending", "cycle")
"""Orders in effects.png: the paper's, and one that shows everybody while the noise is high."""

REVEAL_LOOKS = {
    "one": Look("#E69F00", "P"),
    "cumulative": Look("#56B4E9", "v"),
    "progressive": Look("#332288", "X"),
    "two-phase": Look("#117733", "d"),
    "joint": Look("#882255", "h"),
}
"""Other colours than those of the orders."""

BASELINES = {"no_action": "current actions hidden", "linear": "linear model", "persistence": "persistence"}

_GROUP = 0.74
"""Share of a group's place on the axis that its orders fill."""

_OFF_SCALE = 1.15
"""Baselines beyond so many times the models' largest error are named at the edge instead of drawn."""


def main() -> None:
    """Draw the figures of the folder that the command line names."""
    results, cells = asked_cells(__doc__)
    with matplotlib.rc_context(RC):
        drawn = {"main.png": plot_main(cells), "effects.png": plot_effects(cells)}
        for name, figure in drawn.items():
            if figure is not None:
                save(figure, results / name)
                print(results / name)


def plot_main(cells: Sequence[MeasuredCell]) -> Figure | None:
    """A column for each task; None without the group `main`."""
    tasks = {dataset: mains for dataset in _datasets(cells) if (mains := standard(cells, dataset))}
    if not tasks:
        return None
    figure, grid = plt.subplots(
        2,
        len(tasks),
        figsize=(WIDTH, 4.4),
        layout="constrained",
        squeeze=False,
        sharex="col",
        sharey="row",
        height_ratios=[1.25, 1],
    )
    mark = _mark(cells)
    highest = [curve["ci95"][str(mark)][1] for mains in tasks.values() for cell in mains for curve in _curves(cell)]
    for column, mains in enumerate(tasks.values()):
        draw_errors(grid[0, column], mains, top=_OFF_SCALE * max(highest))
        draw_gains(grid[1, column], mains)
        grid[0, column].set_title(mains[0].dataset)
    grid[0, 0].set_ylabel(f"$E_{{{mark}}}$ of the {_field_name(cells)}, in std")
    grid[1, 0].set_ylabel("action gain (1: right)")
    seeds = len({cell.seed for mains in tasks.values() for cell in mains})
    note = (
        "mean over seeds with 95 % interval over segments; small: each seed"
        if seeds > 1
        else "95 % interval over segments"
    )
    head(figure, f"Error over {mark} imagined steps ({note}), and each agent's gain", grid[0])
    return figure


def draw_errors(axes: Axes, cells: Sequence[MeasuredCell], top: float) -> None:
    """E by reveal and order, each seed small beside the mean; baselines above `top` are named there."""
    groups, orders, mark = by_reveal(cells), _orders(cells), _mark(cells)
    looks = order_looks(orders)
    for place, group in enumerate(groups.values()):
        for order, x in zip(orders, _places(place, len(orders)), strict=True):
            estimate, look = errors_at([cell.curve(order) for cell in group], mark), looks[order]
            ends = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
            label = order if place == 0 else None
            axes.errorbar(x, estimate.mean, ends, color=look.color, fmt=look.marker, elinewidth=1, label=label)
            if len(group) > 1:
                axes.plot([x + 0.06] * len(group), estimate.values, ".", color=look.color, markersize=2.6, alpha=0.55)
    hidden = [errors_at([cell.baseline("no_action") for cell in group], mark).mean for group in groups.values()]
    _draw_levels(axes, "no_action", hidden, top)
    levels = {name: cells[0].baseline(name)["cumulative"][str(mark)] for name in ("linear", "persistence")}
    for name, level in levels.items():
        _draw_levels(axes, name, [level] * len(groups), top)
    beyond = [f"{BASELINES[name]} {level:.3g}" for name, level in levels.items() if level > top]
    if beyond:
        above = "above: " + ", ".join(beyond)
        axes.text(0.98, 0.985, above, transform=axes.transAxes, ha="right", va="top", fontsize=SMALL)
    axes.set_ylim(0, top)
    _name_groups(axes, list(groups))


def draw_gains(axes: Axes, cells: Sequence[MeasuredCell]) -> None:
    """Every agent's gain, mean over seeds, and their range, by reveal and order."""
    groups, orders = by_reveal(cells), _orders(cells)
    looks = order_looks(orders)
    axes.axhline(1, color="0.6", linewidth=0.7, zorder=0)
    axes.axhline(0, color="0.85", linewidth=0.7, zorder=0)
    for place, group in enumerate(groups.values()):
        for order, x in zip(orders, _places(place, len(orders)), strict=True):
            gains = [cell.orders[order]["action_gain"] for cell in group]
            if None in gains:
                continue
            means = [fmean(agent) for agent in zip(*gains, strict=True)]
            axes.plot([x, x], [min(means), max(means)], color=looks[order].color, linewidth=0.8, alpha=0.6)
            axes.plot([x] * len(means), means, looks[order].marker, color=looks[order].color, markersize=2.6)
    _name_groups(axes, list(groups))


def plot_effects(cells: Sequence[MeasuredCell]) -> Figure | None:
    """A row for each task and order, a column for each amount that was varied; None where none was."""
    varied = [(dataset, effect) for dataset in _datasets(cells) for effect in effects(cells, dataset)]
    varied = [(dataset, effect) for dataset, effect in varied if len(effect.names) == 1 and effect.names[0] in AMOUNTS]
    # What was varied for one reveal only has nothing to be compared with: it is in the tables.
    varied = [(dataset, effect) for dataset, effect in varied if len(by_reveal(effect.cells)) > 1]
    if not varied:
        return None
    columns = [amount for amount in AMOUNTS if any(effect.names == (amount,) for _, effect in varied)]
    orders = [order for order in _orders(cells) if order in SHOWN_ORDERS] or _orders(cells)[:1]
    rows = [(dataset, order) for dataset in dict.fromkeys(name for name, _ in varied) for order in orders]
    figure, grid = plt.subplots(
        len(rows),
        len(columns),
        figsize=(WIDTH, 0.8 + 1.8 * len(rows)),
        layout="constrained",
        squeeze=False,
        sharex="col",
        sharey=True,
    )
    found = {(dataset, effect.names[0]): effect for dataset, effect in varied}
    for row, (dataset, order) in zip(grid, rows, strict=True):
        for axes, amount in zip(row, columns, strict=True):
            if (dataset, amount) in found:
                draw_effect(axes, found[dataset, amount], order)
            else:
                axes.set_axis_off()
        row[0].set_ylabel(f"$E_{{{_mark(cells)}}}$ of the {_field_name(cells)}")
        row[0].set_title(f"{dataset}, order {order}", loc="left")
    for axes, amount in zip(grid[-1], columns, strict=True):
        axes.set_xlabel(
            {"training steps": "transitions to train on", "updates": "most updates of a part"}.get(amount, amount)
        )
    panels = sorted(grid.flat, key=lambda axes: -len(axes.get_legend_handles_labels()[0]))
    head(figure, f"Error over {_mark(cells)} imagined steps, in std; bars: 95 % interval over segments", panels)
    return figure


def draw_effect(axes: Axes, effect: Effect, order: str) -> None:
    """E against one amount, a line for each reveal."""
    (name,) = effect.names
    for reveal, group in by_reveal(effect.cells).items():
        amounts = sorted({cell.setting[name] for cell in group})
        estimates = [
            errors_at([cell.curve(order) for cell in group if cell.setting[name] == amount], _mark(effect.cells))
            for amount in amounts
        ]
        look = REVEAL_LOOKS.get(reveal, Look("0.3", "x"))
        ends = [[each.mean - each.low for each in estimates], [each.high - each.mean for each in estimates]]
        means = [each.mean for each in estimates]
        axes.errorbar(amounts, means, ends, color=look.color, marker=look.marker, elinewidth=0.7, label=reveal)
    amounts = sorted({cell.setting[name] for cell in effect.cells})
    axes.set_xscale("log")
    axes.set_xticks(amounts, [f"{amount:,}" for amount in amounts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)


def _draw_levels(axes: Axes, name: str, levels: Sequence[float], top: float) -> None:
    """A baseline's error under every group, as far as it is below `top`."""
    look, label = BASELINE_LOOKS[name], BASELINES[name]
    for place, level in enumerate(levels):
        if level <= top:
            ends = [place - 0.5, place + 0.5]
            axes.plot(
                ends, [level] * 2, color=look.color, linestyle=look.linestyle, linewidth=0.9, label=label, zorder=0
            )
            label = None


def _name_groups(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=18 if len(names) > 3 else 0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.tick_params(axis="x", length=0)


def _places(group: int, count: int) -> list[float]:
    """Where on the axis the orders of a group stand."""
    return [group + _GROUP * ((index + 0.5) / count - 0.5) for index in range(count)]


def _orders(cells: Sequence[MeasuredCell]) -> list[str]:
    """Orders that every cell has."""
    return [order for order in cells[0].orders if all(order in cell.orders for cell in cells)]


def _mark(cells: Sequence[MeasuredCell]) -> int:
    marks: list[Any] = cells[0].prediction["marks"]
    return MARK if MARK in marks else marks[-1]


def _curves(cell: MeasuredCell) -> list[dict[str, Any]]:
    return [cell.curve(order) for order in cell.orders]


def _field_name(cells: Sequence[MeasuredCell]) -> str:
    return {"state": "state", "obs": "observation"}[cells[0].field]


def _datasets(cells: Sequence[MeasuredCell]) -> list[str]:
    return list(dict.fromkeys(cell.dataset for cell in cells))


if __name__ == "__main__":
    main()
