"""What a model imagines beside what happened: fans of trajectories, and the truth's rank among the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dima.run.prediction_figures.style import (
    FIELD_NAMES,
    MAX_HEIGHT,
    RC,
    SMALL,
    WIDTH,
    Look,
    describe,
    order_looks,
    save,
)

_DRIFT = 3.0
"""Standard deviations of the dataset beyond the true trajectory's range that a panel of a fan shows at most."""


def plot_fan(prediction: dict[str, Any], path: Path) -> Figure | None:
    """The true trajectory of each of the chosen state dimensions and the imagined ones, a column an order.

    None, with no file, for a model without a state.
    """
    fan = prediction["fan"]
    if fan is None:
        return None
    orders, looks = list(fan["orders"]), order_looks(list(prediction["orders"]))
    num_dims = len(fan["dims"])
    width = WIDTH if len(orders) > 1 else WIDTH / 2
    with rc_context(RC):
        figure = Figure(figsize=(width, min(1.0 + 1.15 * num_dims, MAX_HEIGHT)), layout="constrained")
        panels = figure.subplots(num_dims, len(orders), sharex=True, sharey="row", squeeze=False)
        for column, order in enumerate(orders):
            panels[0, column].set_title(order, color=looks[order].color)
            panels[-1, column].set_xlabel("step")
            panels[-1, column].xaxis.set_major_locator(MaxNLocator(5, integer=True))
            for row in range(num_dims):
                _draw_fan(panels[row, column], fan["truth"][row], fan["orders"][order][row], looks[order])
        for row, dim in enumerate(fan["dims"]):
            panels[row, 0].set_ylabel(f"state[{dim}]")
            samples = [fan["orders"][order][row] for order in orders]
            panels[row, 0].set_ylim(_window(fan["truth"][row], samples, prediction["units"]["state"]["std"][dim]))
        figure.align_ylabels(panels[:, 0])
        segment = fan["segment"]
        where = f"episode {segment['episode']}, from step {segment['start']}"
        samples = prediction["samples"]
        text = f"truth (black) and {samples} imagined {'trajectory' if samples == 1 else 'trajectories'}"
        figure.supylabel("environment's own units", fontsize=8)
        figure.suptitle(f"{prediction['env']}, {where}\n{text}", fontsize=8)
        save(figure, path)
    return figure


def plot_ranks(prediction: dict[str, Any], path: Path) -> Figure | None:
    """Histograms of the truth's rank among the samples, a row an order, a column a mark; flat where a model is honest.

    The band holds 95 % of the counts of a uniform rank. None, with no file, where a single sample has no rank.
    """
    spreads = {name: order["spread"] or {} for name, order in prediction["orders"].items()}
    field = "state" if all(spread.get("state") for spread in spreads.values()) else "obs"
    if not all(spread.get(field) for spread in spreads.values()):
        return None
    marks, looks = prediction["marks"], order_looks(list(spreads))
    with rc_context(RC):
        figure = Figure(figsize=(WIDTH, 0.9 + 1.15 * len(spreads)), layout="constrained")
        panels = figure.subplots(len(spreads), len(marks), sharex=True, sharey=True, squeeze=False)
        for row, (order, spread) in enumerate(spreads.items()):
            panels[row, 0].set_ylabel(f"{order}\nsegments")
            for column, mark in enumerate(marks):
                _draw_ranks(panels[row, column], spread[field]["ranks"][str(mark)], looks[order])
        for column, mark in enumerate(marks):
            panels[0, column].set_title(f"step {mark}", pad=12)
        name = f"rank of the true {FIELD_NAMES[field]} among {prediction['samples']} samples"
        figure.supxlabel(name, fontsize=8)
        figure.suptitle(describe(prediction), fontsize=8)
        save(figure, path)
    return figure


def _draw_fan(axes: Axes, truth: list[float], samples: list[list[float]], look: Look) -> None:
    steps = np.arange(len(truth))
    for index, sample in enumerate(samples):
        axes.plot(
            steps, sample, color=look.color, linewidth=0.6, alpha=0.6, label="imagined" if index == 0 else "_imagined"
        )
    axes.plot(steps, truth, color="black", linewidth=1.3, label="truth")


def _window(truth: list[float], samples: list[list[list[float]]], std: float) -> tuple[float, float]:
    """The range of truth and samples, but no further than a few standard deviations from the truth's."""
    least, most = min(truth), max(truth)
    imagined = np.concatenate([np.ravel(one) for one in samples])
    low = max(min(least, float(imagined.min())), least - _DRIFT * std)
    high = min(max(most, float(imagined.max())), most + _DRIFT * std)
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _draw_ranks(axes: Axes, ranks: dict[str, Any], look: Look) -> None:
    counts = ranks["histogram"]
    total, share = sum(counts), 1 / len(counts)
    half = 1.96 * np.sqrt(total * share * (1 - share))
    axes.bar(np.arange(len(counts)), counts, 0.9, color=look.color, zorder=2)
    axes.axhspan(max(total * share - half, 0), total * share + half, color="0.5", alpha=0.25, linewidth=0, zorder=1)
    axes.axhline(total * share, color="0.15", linewidth=0.9, linestyle=(0, (4, 2)), zorder=3)
    axes.set_xticks(sorted({0, (len(counts) - 1) // 2, len(counts) - 1}))
    p_value = ranks["p_value"]
    text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    axes.text(1, 1.0, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=SMALL)
