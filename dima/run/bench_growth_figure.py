"""The figure of `dima bench growth=[..]`: a panel an axis, costs against size, both logarithmic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from dima.run.bench_growth import IMAGINED
from dima.run.bench_measure import EAGER
from dima.run.prediction_figures.style import NOTE_COLOR, RC, SMALL, WIDTH, Look, model_looks, save

_LABELS = {
    "agents": "agents",
    "state": "state size",
    "rollouts": "rollouts imagined at once",
    "denoising_steps": "denoising steps",
}
_LEGEND_COLUMN = 2.3
"""Inches."""

_LOOKS = list(model_looks(["imagined", "eager", "a", "b", "c", "d", "e", "f"]).values())


def draw_growth(result: Mapping[str, Any], path: Path) -> None:
    """Draw what `result`, the content of bench.json, has under `growth` into the file `path`."""
    with matplotlib.rc_context(RC):
        figure = _figure(result)
        save(figure, path)
        plt.close(figure)


def _figure(result: Mapping[str, Any]) -> Figure:
    """Imagining above, and below it learning, where a size has to do with it."""
    growth: dict[str, dict[str, Any]] = result["growth"]
    clock, words = ("ms", "ms") if result["hardware"]["gpu"] else ("cpu_ms", "core-ms")
    learned = [axis for axis, records in growth.items() if _parts(records)]
    rows = 2 if learned else 1
    size = (max(WIDTH / 2, WIDTH * len(growth) / 4), 2.0 * rows + (1.3 if len(growth) < 3 else 0.8))
    figure, grid = plt.subplots(rows, len(growth), figsize=size, layout="constrained", squeeze=False, sharey="row")
    for column, (axis, records) in enumerate(growth.items()):
        costs = {IMAGINED: _points(records, lambda record: record[IMAGINED][clock])}
        if any(EAGER in record.get(IMAGINED, {}) for record in records.values()):
            costs["without the engine"] = _points(records, lambda record: record[IMAGINED][EAGER][clock])
        _draw(grid[0, column], costs, axis, _LOOKS[:2])
        _note_skipped(grid[0, column], records)
        if learned:
            parts = {
                part: _points(records, lambda record, part=part: record["updates"][part][clock])
                for part in _parts(records)
            }
            _draw(grid[1, column], parts, axis, _LOOKS[2:])
    grid[0, 0].set_ylabel(f"{words} per imagined env step")
    if learned:
        grid[1, list(growth).index(learned[0])].set_ylabel(f"{words} per update of a part")
    hardware = result["hardware"]
    machine = hardware["gpu"] or f"{hardware['cpu']}, threads: {hardware['num_threads']}"
    figure.suptitle(f"{result['world_model']}, preset {result['preset']}; {machine}", fontsize=8)
    _legend(figure)
    return figure


def _parts(records: Mapping[str, Any]) -> list[str]:
    return next((list(record["updates"]) for record in records.values() if record.get("updates")), [])


def _points(records: Mapping[str, Any], pick: Callable[[Any], float]) -> tuple[list[int], list[float]]:
    there = {int(value): pick(record) for value, record in records.items() if "skipped" not in record}
    return list(there), list(there.values())


def _draw(axes: Axes, curves: Mapping[str, tuple[list[int], list[float]]], axis: str, looks: Sequence[Look]) -> None:
    """One line a curve; for the costliest a dotted one that grows in proportion to the size, or stays as it is."""
    drawn = {name: curve for name, curve in curves.items() if curve[0]}
    if not drawn:
        axes.set_axis_off()
        return
    for (name, (values, costs)), look in zip(drawn.items(), looks, strict=False):
        label = name.replace("_", " ")
        axes.plot(values, costs, color=look.color, marker=look.marker, linestyle=look.linestyle, label=label)
    values, costs = max(drawn.values(), key=lambda curve: max(curve[1]))
    flat = axis == "rollouts"
    guide = [costs[-1] if flat else costs[0] * value / values[0] for value in values]
    # Not by plot(): the guide must not stretch the axes.
    axes.add_artist(Line2D(values, guide, color="0.6", linestyle=(0, (1, 2)), linewidth=0.9, zorder=0))
    axes.set(xscale="log", yscale="log", xlabel=_LABELS[axis], xticks=values[::2] if len(values) > 6 else values)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda cost, _: f"{cost:g}" if f"{cost:e}"[0] in "25" else ""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\N{THIN SPACE}")))


def _legend(figure: Figure) -> None:
    """One for all panels, below them."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        named |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    guide = Line2D([], [], color="0.6", linestyle=(0, (1, 2)), linewidth=0.9)
    named["in proportion (rollouts: constant)"] = guide
    columns = max(1, int(figure.get_figwidth() / _LEGEND_COLUMN))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(columns, len(named)))


def _note_skipped(axes: Axes, records: Mapping[str, Any]) -> None:
    skipped = [value for value, record in records.items() if "skipped" in record]
    if skipped and len(skipped) < len(records):
        text = f"not possible: {', '.join(skipped)}"
        axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", fontsize=SMALL, color=NOTE_COLOR)
